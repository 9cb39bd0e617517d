"""Numbers as rows, as a DataFrame, and drawn."""

import io
import json
import os

import pytest

from bench.analysis.cells import averaged, measured
from bench.analysis.stats import wilson
from bench.api import Result
from bench.config.facts import SUITE_FACTS
from bench.errors import UsageError
from bench.records import load_run, open_run
from bench.tables.rows import COLUMNS, rows
from bench.trust.text import on_one_line
from tests.bench.runs import in_memory, make_header, make_record, make_run
from tests.bench.tables.made import BAD, GOOD


@pytest.fixture
def runs(tmp_path):
    """Two encoders on VQA and on two zero-shot datasets, and one on a targeted attack."""
    result = []
    for encoder, attacked in (("fare4", GOOD), ("clip", BAD)):
        result.append(make_run(tmp_path / f"{encoder}-vqa", {0: GOOD, 2: attacked, 4: BAD}, encoder=encoder))
        for dataset, size in (("shape", 10), ("colour", 5)):
            scores = {0: GOOD[:size], 4: attacked[:size]}
            place = tmp_path / f"{encoder}-{dataset}"
            result.append(make_run(place, scores, encoder=encoder, task="zeroshot", dataset=dataset))
        scores = {0: [0.0] * 10, 4: attacked}
        changes = {"task": "stealth", "dataset": "mini-stealth", "worst": "max", "metric": "success"}
        result.append(make_run(tmp_path / f"{encoder}-stealth", scores, encoder=encoder, **changes))
    return result


def test_there_is_one_row_per_run_and_radius_with_exactly_these_keys(runs):
    found = rows(measured(runs[:1]))
    assert [row["radius"] for row in found] == [0.0, 2.0, 4.0]
    low, high = wilson(2, 10)
    assert found[2] == {
        "suite": "mini",
        "encoder": "fare4",
        "task": "vqa",
        "dataset": "mini-vqa",
        "metric": "accuracy",
        "attack": "ensemble",
        "radius": 4.0,
        "value": 20.0,
        "low": pytest.approx(100 * low),
        "high": pytest.approx(100 * high),
        "n": 10,
        "partial": False,
        "checks": [],
        "run_dir": str(runs[0].directory),
    }
    assert json.loads(json.dumps(found)) == found


def test_what_was_not_measured_has_no_row(tmp_path):
    with open_run(tmp_path, make_header()) as store:
        store.append([make_record(score=None, error="out of memory")])
    assert measured([load_run(tmp_path)]) == []


def test_a_metric_without_a_ceiling_is_not_squeezed_below_100(tmp_path):
    (row,) = rows(measured([make_run(tmp_path / "a", {0: [50.0, 150.0, 250.0]}, metric="CIDEr")]))
    assert row["value"] == 150.0
    assert row["high"] > 150
    (row,) = rows(measured([make_run(tmp_path / "b", {0: [150.0] * 3}, metric="CIDEr")]))
    assert (row["low"], row["high"]) == (150.0, 150.0)


def test_the_ceiling_is_the_headers_and_not_the_metrics_name(tmp_path):
    """A metric from 0 to 10 that a plugin calls what it likes: 10 of 10 is a proportion, and no number passes 10."""
    scores = {0: [10.0] * 8 + [0.0] * 2}
    (row,) = rows(measured([make_run(tmp_path / "ten", scores, metric="stars", ceiling=10.0)]))
    low, high = wilson(8, 10)
    assert (row["value"], row["low"], row["high"]) == (8.0, pytest.approx(10 * low), pytest.approx(10 * high))
    (row,) = rows(measured([make_run(tmp_path / "none", {0: [120.0] * 3}, metric="SPICE", ceiling=None)]))
    assert (row["low"], row["high"]) == (120.0, 120.0)


def test_a_number_on_fewer_samples_than_the_run_has_is_not_whole(tmp_path):
    with open_run(tmp_path, make_header(n_samples=2, radii=(4.0,))) as store:
        store.append([make_record(f"s{k}") for k in range(2)])
        store.append([make_record("s0", "apgd", 4.0, 0.0), make_record("s1", "apgd", 4.0, None, error="NaN")])
        store.finish("complete")
    assert [(m.radius, m.estimate.n, m.whole) for m in measured([load_run(tmp_path)])] == [
        (0.0, 2, True),
        (4.0, 1, False),
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"protocol": {"name": "paper"}},
        {"protocol": {"precision": "bf16"}},
        {"norm": "l2"},
        {"attack": "apgd"},
        {"suite": "other"},
        {"metric": "other"},
    ],
    ids=str,
)
def test_what_was_measured_otherwise_is_not_averaged_with_it(changes):
    shape, colour = ({"task": "zeroshot", "dataset": name} for name in ("shape", "colour"))
    alike = [in_memory({0: GOOD, 4: BAD}, **one) for one in (shape, colour)]
    assert len(averaged(alike, SUITE_FACTS)) == 2
    assert averaged([alike[0], in_memory({0: GOOD, 4: BAD}, **colour | changes)], SUITE_FACTS) == []


def test_an_average_has_the_radii_that_all_its_runs_have():
    runs = [
        in_memory({0: GOOD, eps: BAD, 4: BAD}, task="zeroshot", dataset=name)
        for name, eps in (("shape", 2), ("colour", 8))
    ]
    assert [m.radius for m in averaged(runs, SUITE_FACTS)] == [0.0, 4.0]


def test_averages_are_plain_means_over_datasets(runs):
    found = rows(averaged(runs, SUITE_FACTS))
    assert [(r["encoder"], r["radius"], r["value"]) for r in found] == [
        ("fare4", 0.0, pytest.approx((80 + 100) / 2)),
        ("fare4", 4.0, pytest.approx((80 + 100) / 2)),
        ("clip", 0.0, pytest.approx((80 + 100) / 2)),
        ("clip", 4.0, pytest.approx((20 + 40) / 2)),
    ]
    assert all(row["dataset"] == "average" and row["n"] == 15 for row in found)
    assert len(found[0]["run_dir"].split(os.pathsep)) == 2


def test_an_encoder_that_lacks_a_dataset_has_no_average(runs, tmp_path):
    third = make_run(tmp_path / "third", {0: GOOD, 4: GOOD}, task="zeroshot", dataset="count")
    assert {m.header.encoder for m in averaged([*runs, third], SUITE_FACTS)} == {"fare4"}
    assert averaged(runs[:2], SUITE_FACTS) == []


def test_an_average_over_a_partial_run_is_partial(runs, tmp_path):
    partial = make_run(tmp_path / "p", {0: GOOD, 4: BAD}, task="zeroshot", dataset="count", status="partial")
    mine = [run for run in runs if run.header.encoder == "fare4"]
    assert [m.whole for m in averaged([*mine, partial], SUITE_FACTS)] == [False, False]


# ---- Result.table and Result.plot ------------------------------------------------------------------------


def test_the_frame_has_real_columns(runs):
    frame = Result(tuple(runs)).table()
    assert tuple(frame.columns) == COLUMNS
    assert [str(frame[name].dtype) for name in ("radius", "value", "low", "high", "n", "partial")] == [
        *["float64"] * 4,
        "int64",
        "bool",
    ]
    attacked = frame[(frame.task == "vqa") & (frame.radius == 4)]
    assert attacked.value.mean() == 20.0
    assert set(frame[frame.dataset == "average"].n) == {15}
    assert len(frame) == 2 * (3 + 2 + 2 + 2) + 4
    assert frame.attrs["lower_is_better"] == ["stealth"]
    assert frame.checks.tolist() == [""] * len(frame)


def test_the_frame_says_what_is_partial_and_which_checks_failed():
    doubts = [{"name": name, "ok": False, "detail": ""} for name in ("no_errors", "attack_moves_images")]
    frame = Result((in_memory({0: GOOD}, limit=10, checks=doubts),)).table()
    assert frame.partial.tolist() == [True]
    assert frame.checks.tolist() == ["no_errors, attack_moves_images"]


def test_the_plot_has_a_panel_per_dataset_and_a_line_per_encoder(runs):
    figure = Result(tuple(runs)).plot()
    titles = ["vqa, mini-vqa", "zeroshot, shape", "zeroshot, colour", "zeroshot, average", "stealth, mini-stealth"]
    assert sorted(axes.get_title() for axes in figure.axes) == sorted(titles)
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["clip", "fare4"]
    lines = {line.get_label(): line for line in axes.containers}
    assert list(lines["clip"].lines[0].get_ydata()) == [80.0, 20.0, 20.0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["clean", "2/255", "4/255"]


def test_two_runs_of_one_encoder_are_not_joined_by_a_line(tmp_path):
    runs = [make_run(tmp_path / str(seed), {0: GOOD, 4: BAD}, seed=seed) for seed in (0, 1)]
    figure = Result(tuple(runs)).plot()
    assert [axes.get_title() for axes in figure.axes] == ["vqa, mini-vqa, 0", "vqa, mini-vqa, 1"]
    assert all(len(line.lines[0].get_ydata()) == 2 for axes in figure.axes for line in axes.containers)


def test_an_l2_radius_is_not_called_a_255th():
    axes = Result((in_memory({0: GOOD, 0.5: BAD}, norm="l2"),)).plot().axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["clean", "0.5 (l2)"]


@pytest.mark.parametrize("name", [r"$\frac$ $x^$", "caf\udce9", "a\x1bb"])
def test_any_name_can_be_drawn(name):
    """A dollar sign is no formula, and a byte that is no UTF-8 no letter."""
    figure = Result((in_memory({0: GOOD, 4: BAD}, encoder=name, dataset=name, metric=name),)).plot()
    figure.savefig(io.BytesIO())
    assert figure.axes[0].get_ylabel() == on_one_line(name)


def test_nothing_is_not_drawn():
    with pytest.raises(UsageError, match="no run has results"):
        Result(()).plot()
