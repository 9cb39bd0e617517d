"""Counting answers: yes and no by hand, shares with their intervals, parts by category."""

import numpy as np
import pytest

from bench.analysis import answers
from bench.analysis.stats import RESAMPLES, ratio_interval
from bench.records import load_run, open_run
from bench.records.samples import Asked, write_samples
from tasks.metrics.yes_no import yes_no_counts
from tests.bench.runs import make_header, make_record


def counted_run(place, said, wanted, groups=None, categories=None, **header):
    """A run of samples s0, s1, ...; ``said`` maps each radius to what was answered."""
    right = {
        r: [100.0 * (one.lower().startswith(w)) for one, w in zip(s, wanted, strict=True)] for r, s in said.items()
    }
    records = [
        make_record(f"s{i}", "apgd" if radius else "clean", float(radius), right[radius][i], prediction=text,
                    group=groups[i] if groups else f"g{i}")
        for radius, texts in said.items()
        for i, text in enumerate(texts)
    ]  # fmt: skip
    fields = {"task": "pope", "dataset": "pope-random", "metric": "accuracy (%)", "n_samples": len(wanted)}
    with open_run(place, make_header(**fields | {"radii": tuple(float(r) for r in said if r)} | header)) as store:
        kept = categories or [()] * len(wanted)
        write_samples(place, (Asked(f"s{i}", "?", (w,), kept[i]) for i, w in enumerate(wanted)))
        store.append(records)
        store.finish("complete")
    return load_run(place)


def numbers(measures, radius=0.0):
    return {m.part: m.estimate.value for m in measures if m.radius == radius}


def test_yes_and_no_are_counted_clean_and_with_the_worst_answer_at_each_radius(tmp_path):
    wanted = ["yes", "yes", "no", "no", "yes"]
    said = {0: ["Yes", "no", "No.", "yes", "a ring"], 2: ["no", "no", "yes", "yes", "a ring"]}
    measures = answers.yes_no([counted_run(tmp_path, said, wanted)])
    assert numbers(measures) == pytest.approx(
        {"accuracy": 40.0, "precision": 50.0, "recall": 100 / 3, "F1": 40.0, "yes-rate": 40.0}
    )
    assert numbers(measures, 2.0) == {"accuracy": 0, "precision": 0, "recall": 0, "F1": 0, "yes-rate": 40.0}
    assert all(m.whole and m.estimate.n == 5 for m in measures)
    assert {m.part for m in measures if not m.ranked} == {"yes-rate"}
    assert {m.part: m.metric for m in measures}["recall"] == "recall (%)"
    assert {m.part: m.metric for m in measures}["accuracy"] == "accuracy (%)"


def test_the_counts_are_those_of_the_metric(tmp_path):
    rng = np.random.default_rng(0)
    wanted = rng.choice(["yes", "no"], 200).tolist()
    said = rng.choice(["yes", "no", "perhaps"], 200, p=[0.5, 0.4, 0.1]).tolist()
    found = numbers(answers.yes_no([counted_run(tmp_path, {0: said}, wanted)]))
    read = [one if one != "perhaps" else None for one in said]
    counts = yes_no_counts(read, wanted)
    assert found == pytest.approx({"accuracy": counts.accuracy, "precision": counts.precision, "recall": counts.recall,
                                   "F1": counts.f1, "yes-rate": counts.yes_rate})  # fmt: skip


def test_answers_are_read_by_the_runs_protocol(tmp_path):
    paper = {"precision": "float32", "name": "paper", "yes_no": "anything-but-no"}
    run = counted_run(tmp_path, {0: ["a ring", "not there"]}, ["yes", "no"], protocol=paper)
    assert numbers(answers.yes_no([run]))["yes-rate"] == 50
    strict = counted_run(tmp_path / "s", {0: ["a ring", "not there"]}, ["yes", "no"])
    assert numbers(answers.yes_no([strict]))["yes-rate"] == 0


def test_a_share_of_nothing_has_no_number(tmp_path):
    found = numbers(answers.yes_no([counted_run(tmp_path, {0: ["no", "no"]}, ["no", "no"])]))
    assert found == {"accuracy": 100.0, "yes-rate": 0.0}
    assert ratio_interval({"a": (0, 0)}, {"a": "g"}) is None


def test_the_interval_of_a_share_resamples_images():
    """Against a bootstrap written out, with other draws; and wider where an image has all its samples alike."""
    rng = np.random.default_rng(1)
    parts = {f"s{i}": (float(i % 3 == 0), float(i % 2 == 0 or i % 3 == 0)) for i in range(120)}
    groups = {f"s{i}": f"g{i // 4}" for i in range(120)}
    found = ratio_interval(parts, groups)
    tops, bottoms = (np.array([part[k] for part in parts.values()]).reshape(30, 4).sum(1) for k in (0, 1))
    drawn = rng.integers(30, size=(RESAMPLES, 30))
    shares = 100 * tops[drawn].sum(1) / bottoms[drawn].sum(1)
    low, high = np.percentile(shares, [2.5, 97.5])
    assert (found.low, found.high) == pytest.approx((low, high), abs=1.0)
    assert found.value == pytest.approx(100 * tops.sum() / bottoms.sum())
    assert found.n == 120
    alike = {f"s{i}": (float(i < 60), 1.0) for i in range(120)}
    wide, narrow = ratio_interval(alike, groups), ratio_interval(alike, {s: s for s in groups})
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_a_share_that_is_certain_in_every_resample_has_wilsons_interval():
    found = ratio_interval({f"s{i}": (1.0, 1.0) for i in range(20)}, {f"s{i}": f"g{i // 2}" for i in range(20)})
    assert (found.value, found.high) == (100, 100)
    assert found.low == pytest.approx(100 / (1 + 1.959963984540054**2 / 10), abs=1e-6)  # of ten images


def test_categories_are_parts_of_the_samples(tmp_path):
    categories = [("NAT", "IMG", "G1-6"), ("NAT", "TXT", "IMG", "G7-12"), ("SOC", "IMG", "G1-6"), ()]
    run = counted_run(tmp_path, {0: ["yes", "no", "yes", "yes"], 4: ["no", "no", "yes", "no"]}, ["yes"] * 4,
                      task="scienceqa", categories=categories)  # fmt: skip
    assert run.header.answer_kind == "choice"
    measures = answers.by_category([run])
    wanted = {"all": 75.0, "NAT": 50.0, "IMG": 200 / 3, "G1-6": 100.0, "TXT": 0.0, "G7-12": 0.0, "SOC": 100.0}
    assert numbers(measures) == pytest.approx(wanted)
    assert numbers(measures, 4.0)["NAT"] == 0
    sizes = {m.part: m.estimate.n for m in measures if not m.radius}
    assert (sizes["all"], sizes["NAT"], sizes["SOC"]) == (4, 2, 1)
    assert all(m.whole for m in measures)


def test_a_category_of_every_sample_is_no_part(tmp_path):
    categories = [("IMG", "NAT"), ("IMG", "SOC")]
    run = counted_run(tmp_path, {0: ["yes", "no"]}, ["yes"] * 2, task="scienceqa", categories=categories)
    assert numbers(answers.by_category([run])) == {"all": 50.0, "NAT": 100.0, "SOC": 0.0}


def test_a_run_that_did_not_keep_what_was_asked_has_no_counts(tmp_path):
    run = counted_run(tmp_path, {0: ["yes"]}, ["yes"])
    (tmp_path / "samples.jsonl").unlink()
    assert answers.yes_no([run]) == []
    assert numbers(answers.by_category([run])) == {"all": 100.0}
