"""Loss curves: the loss it had reached after 1, 2, 4, ... images."""

import math
from dataclasses import replace

import pytest
import torch

from attacks.apgd import apgd
from attacks.kinds import APGD, AttackKind, run_apgd
from attacks.objective import Classification, Progress
from attacks.threat import ThreatModel
from bench.records import Record, RecordsError
from bench.running.loss_curve import Watch
from tests.bench.runs import make_record
from tests.bench.toy_runs import RADIUS, bare, put_kind, run, short
from tests.toys import trained_toy

THREAT = ThreatModel("linf", RADIUS / 255)


def climb(objective, count=6, **options):
    return apgd(objective, trained_toy().images[:count], THREAT, steps=20, **options)


def plain(count=6):
    toy = trained_toy()
    return Classification(toy.model, toy.labels[:count])


def test_watching_an_attack_changes_nothing_of_it():
    watch = Watch(plain(), 6, torch.device("cpu"))
    for alone, seen in zip(climb(plain()), climb(watch), strict=True):
        assert torch.equal(alone, seen)


def test_a_curve_is_the_highest_loss_so_far_at_powers_of_two():
    asked = []

    def spy(images, rows):
        progress = plain()(images, rows)
        asked.append(dict(zip(rows.tolist(), progress.loss.tolist(), strict=True)))
        return progress

    watch = Watch(spy, 6, torch.device("cpu"))
    outcome = climb(watch, stop_when_fooled=False)
    for row, curve in enumerate(watch.curves()):
        seen = [losses[row] for losses in asked]
        assert len(seen) == 21
        assert curve == pytest.approx([max(seen[:n]) for n in (1, 2, 4, 8, 16)], rel=1e-4)
        assert curve[-1] <= float(outcome.loss[row]) * (1 + 1e-4)


def test_the_curve_of_a_sample_ends_where_it_leaves_and_is_that_of_the_sample_alone():
    toy = trained_toy()
    together = Watch(plain(16), 16, torch.device("cpu"))
    outcome = climb(together, 16)
    assert 0 < outcome.fooled.sum() < 16
    for row, curve in enumerate(together.curves()):
        tried = int(outcome.evaluations[row]) + 1
        assert len(curve) == tried.bit_length()
        alone = Watch(Classification(toy.model, toy.labels[[row]]), 1, torch.device("cpu"))
        apgd(alone, toy.images[[row]], THREAT, steps=20)
        assert alone.curves()[0] == pytest.approx(curve, rel=1e-3)


def test_what_is_not_finite_has_no_curve():
    def broken(images, rows):
        losses = torch.where(rows == 0, torch.nan, 1.0)
        return Progress(losses, torch.zeros(len(rows), dtype=torch.bool))

    watch = Watch(broken, 2, torch.device("cpu"))
    watch(torch.zeros(2, 3, 8, 8), torch.arange(2))
    assert watch.curves() == [None, (1.0,)]


def test_a_kind_without_a_loss_curve_gets_its_objective_as_it_is(tmp_path, monkeypatch):
    seen = []

    def spy(objective, *rest):
        seen.append(objective)
        return run_apgd(objective, *rest)

    put_kind(monkeypatch, "apgd", AttackKind(spy, "a spy"))
    run(tmp_path / "without", short("apgd"), monkeypatch=monkeypatch)
    put_kind(monkeypatch, "apgd", AttackKind(spy, "a spy", loss_curve=True))
    run(tmp_path / "with", short("apgd"), monkeypatch=monkeypatch)
    assert [type(one) for one in seen] == [Classification, Watch]


def test_a_run_records_curves_and_they_survive_the_file(tmp_path, monkeypatch):
    steps = [*short("apgd"), *short("autoattack")]
    found = run(tmp_path, steps, monkeypatch=monkeypatch)
    kinds = {step.name: step.kind for step in steps}
    for record in found.records:
        climbed = kinds.get(record.step) in ("apgd", "pgd") and record.error is None
        assert (record.loss_curve is not None) == climbed, record
        if climbed:
            assert list(record.loss_curve) == sorted(record.loss_curve)
            assert Record.from_json(record.to_json()) == record


def test_curves_move_no_score(tmp_path, monkeypatch):
    watched_run = run(tmp_path / "a", short("apgd"), monkeypatch=monkeypatch)
    put_kind(monkeypatch, "apgd", replace(APGD, loss_curve=False))
    blind = run(tmp_path / "b", short("apgd"), monkeypatch=monkeypatch)
    assert bare(watched_run.records) == bare(blind.records)
    assert [r.loss for r in watched_run.records] == [r.loss for r in blind.records]


@pytest.mark.parametrize("curve", [[0.5], (0.5, None), (1,), "0.5", 0.5])
def test_a_curve_of_anything_else_is_refused(curve):
    with pytest.raises(RecordsError, match="loss_curve"):
        make_record(loss_curve=curve)


def test_a_record_without_a_curve_is_written_as_before():
    assert "loss_curve" not in make_record().to_json()
    assert Record.from_json(make_record(loss_curve=(math.inf,)).to_json()).loss_curve == (math.inf,)
