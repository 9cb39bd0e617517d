"""Gradient evaluations of the gate: how many percent more are allowed, of which samples, and in which words."""

import msgspec
import pytest
from click.testing import CliRunner

from bench.cli import main
from bench.records import Run, open_run
from bench.regression import baseline as committed
from bench.regression.compare import compare_gradients
from tests.bench.runs import in_memory

SCORES = {0: [100.0] * 4, 2: [100.0] * 4, 4: [0.0] * 4}


def costing(evaluations, scores=SCORES, **header) -> Run:
    """A run whose attacks took so many gradient evaluations of each sample at each radius."""
    run = in_memory(scores, **header)
    spent = [evaluations[int(r.sample_id[1:])] if r.step != "clean" else 0 for r in run.records]
    records = [msgspec.structs.replace(r, evaluations=n) for r, n in zip(run.records, spent, strict=True)]
    return Run(run.directory, run.header, records)


@pytest.mark.parametrize(("after", "passes"), [(115, True), (116, False), (50, True)])
def test_the_rise_that_is_allowed_is_the_last_that_passes(after, passes):
    (finding,) = compare_gradients([costing([after] * 4)], [costing([100] * 4)], 15)
    assert (finding.ok, finding.outcome) == ((True, "ok") if passes else (False, "dearer"))


def test_both_radii_and_all_samples_count():
    (finding,) = compare_gradients([costing([10, 20, 30, 60])], [costing([10, 10, 10, 10])], 15)
    assert finding.words == (
        "fare4 / vqa / mini-vqa: 60.0 gradient evaluations per sample, 20.0 in the baseline (+200.0 %); at most +15 % "
        "is allowed"
    )


def test_of_a_part_only_its_samples_are_compared():
    part = costing([100, 100], {eps: scores[:2] for eps, scores in SCORES.items()}, limit=2)
    (finding,) = compare_gradients([part], [costing([100, 100, 1, 1])], 0)
    assert finding.ok
    (finding,) = compare_gradients([part], [costing([90, 90, 500, 500])], 10)
    assert not finding.ok


def test_gradients_where_there_were_none_are_a_rise():
    (finding,) = compare_gradients([costing([1] * 4)], [costing([0] * 4)], 15)
    assert not finding.ok
    assert "(none before)" in finding.words


def test_nothing_is_said_of_runs_that_cannot_be_compared_or_take_none():
    assert compare_gradients([costing([0] * 4)], [costing([9] * 4)], 15) == []
    assert compare_gradients([costing([9] * 4, task_version=2)], [costing([1] * 4)], 15) == []
    assert compare_gradients([costing([9] * 4, encoder="clip")], [costing([1] * 4)], 15) == []


def save(run, directory):
    with open_run(directory, run.header) as store:
        store.append(list(run.records))
        store.finish("complete")


def test_as_an_option_of_the_gate(tmp_path):
    save(costing([100] * 4), tmp_path / "old" / "run")
    save(costing([120] * 4), tmp_path / "new" / "run")
    committed.update(tmp_path / "base", [tmp_path / "old"])

    def check(*more):
        return CliRunner().invoke(
            main, ["check", "--baseline", str(tmp_path / "base"), "--runs", str(tmp_path / "new"), *more]
        )

    assert check().exit_code == 0
    assert check("--max-gradient-rise", "20").exit_code == 0
    failed = check("--max-gradient-rise", "15")
    assert failed.exit_code == 1
    assert "DEARER  fare4 / vqa / mini-vqa: 240.0 gradient evaluations per sample, 200.0" in failed.stdout
    assert check("--max-gradient-rise", "-1").exit_code == 2
