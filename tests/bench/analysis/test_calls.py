"""Refusals and disagreement of endpoints, by hand."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from bench.analysis.calls import declined, disagreement, sentences
from bench.analysis.cells import measured
from bench.records import Run
from tasks.calls import Call, Repeat
from tests.bench.runs import make_header, make_record

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def call(outcome="answer"):
    return Call(outcome, "d", "p", "m", NOW)


def record(sample, radius, outcome, score=100.0, **more):
    scored = outcome == "answer"
    step = "brought" if radius else "clean"
    return make_record(
        sample, step, radius, score if scored else None, error=None if scored else outcome, call=call(outcome), **more
    )


def run_of(*records, **header):
    fields = {"radii": (4.0,), "n_samples": 4, "status": "complete", "attack": "brought", "dataset": "set"}
    return Run(Path("run"), make_header(**fields | header), list(records))


def test_who_declined_is_no_part_of_n_and_the_number_is_whole_all_the_same():
    """Of four: one declines clean, one is filtered attacked, one falls, one stays."""
    run = run_of(
        record("s0", 0.0, "refusal"),
        *(record(f"s{k}", 0.0, "answer") for k in (1, 2, 3)),
        record("s1", 4.0, "filtered"),
        record("s2", 4.0, "answer", 0.0),
        record("s3", 4.0, "answer"),
    )
    assert declined(run, 0.0) == {"refusal": 1}
    assert declined(run, 4.0) == {"refusal": 1, "filtered": 1}
    clean, attacked = measured([run])
    assert (clean.estimate.value, clean.estimate.n, clean.whole) == (100.0, 3, True)
    assert (attacked.estimate.value, attacked.estimate.n, attacked.whole) == (50.0, 2, True)
    assert sentences(run) == [
        "set: declined, and counted neither as robust nor as broken: clean 1 refused of 4; 4/255 1 filtered, 1 refused "
        "of 4."
    ]


def test_who_failed_did_not_decline():
    """A sample whose attacked call failed is to be asked again: the number is not whole."""
    run = run_of(
        *(record(f"s{k}", 0.0, "answer") for k in range(4)),
        *(record(f"s{k}", 4.0, "answer") for k in range(2)),
        record("s2", 4.0, "refusal"),
        record("s3", 4.0, "error"),
    )
    assert declined(run, 4.0) == {"refusal": 1}
    assert [measure.whole for measure in measured([run])] == [True, False]


def test_disagreement_is_the_share_of_other_answers():
    def repeats(*said):
        return tuple(
            Repeat(text, None if text == "" else 100.0, call("answer" if text else "refusal")) for text in said
        )

    records = [
        record("s0", 0.0, "answer", prediction="red", repeats=repeats("red", "blue")),
        record("s1", 0.0, "answer", prediction="red", repeats=repeats("red", "")),
        record("s2", 0.0, "refusal", repeats=repeats("", "")),
        record("s3", 0.0, "answer", prediction="red", repeats=repeats("red", "red")),
    ]
    assert disagreement(records).value == pytest.approx(25.0)
    assert disagreement([make_record()]) is None


def test_nothing_is_said_of_a_local_model():
    assert sentences(run_of(*(make_record(f"s{k}") for k in range(4)))) == []
