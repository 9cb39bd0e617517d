import os

import pytest

from bench.analysis.stats import wilson
from bench.records import RecordsError, load_run, open_run
from bench.tables.flat import (
    BANNER,
    ROW_KEYS,
    averages,
    stale,
    summary,
    table,
    to_text,
    write_block,
)
from bench.tables.layouts import build
from bench.tables.render import STYLES, render
from tests.bench.runs import make_header, make_record, make_run

GOOD, BAD = [100.0] * 8 + [0.0] * 2, [100.0] * 2 + [0.0] * 8


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


def test_summary_has_one_row_a_run_and_radius_with_exactly_these_keys(runs):
    rows = summary(runs[:1])
    assert [row["radius"] for row in rows] == [0.0, 2.0, 4.0]
    assert all(tuple(row) == ROW_KEYS for row in rows)
    low, high = wilson(2, 10)
    assert rows[2] == {
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
        "run_dir": str(runs[0].directory),
    }


def test_what_was_not_measured_has_no_row(tmp_path):
    with open_run(tmp_path, make_header()) as store:
        store.append([make_record(score=None, error="out of memory")])
    assert summary([load_run(tmp_path)]) == []


def test_cider_is_not_squeezed_below_100(tmp_path):
    (row,) = summary([make_run(tmp_path / "a", {0: [50.0, 150.0, 250.0]}, metric="CIDEr")])
    assert row["value"] == 150.0
    assert row["high"] > 150
    (row,) = summary([make_run(tmp_path / "b", {0: [150.0] * 3}, metric="CIDEr")])
    assert (row["low"], row["high"]) == (150.0, 150.0)


def test_averages_are_plain_means_over_datasets(runs):
    rows = averages(runs)
    assert [(r["encoder"], r["radius"], r["value"]) for r in rows] == [
        ("fare4", 0.0, pytest.approx((80 + 100) / 2)),
        ("fare4", 4.0, pytest.approx((80 + 100) / 2)),
        ("clip", 0.0, pytest.approx((80 + 100) / 2)),
        ("clip", 4.0, pytest.approx((20 + 40) / 2)),
    ]
    assert all(tuple(row) == ROW_KEYS and row["dataset"] == "average" and row["n"] == 15 for row in rows)
    assert len(rows[0]["run_dir"].split(os.pathsep)) == 2


def test_an_encoder_that_lacks_a_dataset_has_no_average(runs, tmp_path):
    third = make_run(tmp_path / "third", {0: GOOD, 4: GOOD}, task="zeroshot", dataset="count")
    assert {row["encoder"] for row in averages([*runs, third])} == {"fare4"}
    assert averages(runs[:2]) == []


def test_two_runs_of_one_dataset_are_not_averaged(runs, tmp_path):
    again = make_run(tmp_path / "again", {0: GOOD, 4: GOOD}, task="zeroshot", dataset="shape", seed=1)
    with pytest.raises(ValueError, match="two runs of fare4 on shape"):
        averages([*runs, again])


def test_table_groups_tasks_and_keeps_the_given_order_of_encoders(runs):
    frame = table(summary(runs) + averages(runs), encoders=["clip"])
    assert list(frame.columns) == ["encoder", "task", "dataset", "clean", "2/255", "4/255", "n"]
    assert [tuple(line) for line in frame[["task", "dataset", "encoder"]].to_numpy()] == [
        (task, dataset, encoder)
        for task, dataset in [
            ("vqa", "mini-vqa"),
            ("zeroshot", "shape"),
            ("zeroshot", "colour"),
            ("zeroshot", "average"),
            ("stealth", "mini-stealth"),
        ]
        for encoder in ("clip", "fare4")
    ]
    low, high = (100 * end for end in wilson(8, 10))
    assert frame.loc[0, "clean"] == f"80.0 [{low:.1f}, {high:.1f}]"
    assert frame.loc[2, "2/255"] == "-"
    assert frame.loc[0, "n"] == "10"
    assert table(summary(runs))["encoder"][0] == "fare4"
    assert list(table(averages(runs) + summary(runs))["dataset"][:6:2]) == ["shape", "colour", "average"]


def test_two_attacks_get_a_column_and_two_seeds_are_refused(runs, tmp_path):
    other = make_run(tmp_path / "apgd", {0: GOOD, 2: GOOD, 4: GOOD}, attack="apgd")
    frame = table(summary([runs[0], other]))
    assert list(frame["attack"]) == ["ensemble", "apgd"]
    seeds = make_run(tmp_path / "seed1", {0: GOOD, 2: GOOD, 4: GOOD}, seed=1)
    with pytest.raises(ValueError, match=r"two runs for one cell.*fare4-vqa and .*seed1"):
        table(summary([runs[0], seeds]))


def test_an_empty_table_is_refused():
    with pytest.raises(ValueError, match="no rows"):
        table([])


def test_a_row_without_its_run_is_refused(runs):
    rows = [row | {"run_dir": "/nowhere"} for row in summary(runs[:1])]
    with pytest.raises(RecordsError, match="/nowhere"):
        table(rows)


# ---- partial runs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes", [{"status": "partial"}, {"status": "failed"}, {"limit": 10}, {"n_samples": 11}], ids=str
)
def test_partial_runs_are_marked_and_kept_out_of_committed_tables(runs, tmp_path, changes):
    partial = make_run(tmp_path / "partial", {0: GOOD, 4: BAD}, encoder="tecoa4", **changes)
    frame = table(summary([runs[0], partial]))
    assert not frame.loc[0, "clean"].endswith("*")
    assert frame.loc[1, "clean"].endswith("]*")
    file = tmp_path / "README.md"
    file.write_text("<!-- bench:t -->\n<!-- /bench:t -->\n")
    before = file.read_text()
    styles = [style for style in STYLES if style != "csv"]  # there, each line says whether its run is whole
    for shown in (to_text(frame), *(render(build("flat", [runs[0], partial]), style) for style in styles)):
        assert BANNER in shown
        with pytest.raises(ValueError, match="only whole runs"):
            write_block(file, "t", shown)
    assert file.read_text() == before
    assert BANNER not in to_text(table(summary([runs[0]])))


def test_an_average_over_a_partial_run_is_partial(runs, tmp_path):
    partial = make_run(tmp_path / "p", {0: GOOD, 4: BAD}, task="zeroshot", dataset="count", status="partial")
    mine = [run for run in runs if run.header.encoder == "fare4"]
    frame = table(averages([*mine, partial]))
    assert frame.loc[0, "clean"].endswith("*")


# ---- blocks of a Markdown file ---------------------------------------------------------------------------


@pytest.mark.parametrize("inside", ["", "old\n", "\n\nold\n\n"])
def test_a_block_is_replaced_and_nothing_else(tmp_path, inside):
    file = tmp_path / "B.md"
    file.write_text(f"top\n<!-- bench:a -->\n{inside}<!-- /bench:a -->\n\n<!-- bench:b -->\nB\n<!-- /bench:b -->\nend")
    assert stale(file, "a", "new\n")
    for _ in range(2):
        write_block(file, "a", "\nnew \\1\n")
        assert file.read_text() == (
            "top\n<!-- bench:a -->\nnew \\1\n<!-- /bench:a -->\n\n<!-- bench:b -->\nB\n<!-- /bench:b -->\nend"
        )
        assert not stale(file, "a", "new \\1")
    assert stale(file, "a", "newer")
    assert not stale(file, "b", "B\n")


@pytest.mark.parametrize(
    "text",
    [
        "no block",
        "<!-- bench:a -->\n",
        "<!-- /bench:a -->\n<!-- bench:a -->\n",
        "<!-- bench:a -->\n<!-- /bench:a -->\n<!-- bench:a -->\n<!-- /bench:a -->\n",
    ],
)
def test_a_file_without_the_block_is_refused(tmp_path, text):
    file = tmp_path / "B.md"
    file.write_text(text)
    for function in (write_block, stale):
        with pytest.raises(ValueError, match=r"B\.md must have the lines"):
            function(file, "a", "new")
    assert file.read_text() == text
    with pytest.raises(RecordsError, match=r"absent\.md"):
        write_block(tmp_path / "absent.md", "a", "new")


def test_an_empty_block_is_refused(tmp_path):
    with pytest.raises(ValueError, match="empty"):
        write_block(tmp_path / "B.md", "a", " \n")


def test_an_l2_radius_is_not_called_a_255th(tmp_path):
    frame = table(summary([make_run(tmp_path / "l2", {0: GOOD, 0.5: BAD}, norm="l2")]))
    assert "0.5 (l2)" in frame.columns
    assert not [name for name in frame.columns if "/255" in name]
