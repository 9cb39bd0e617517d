"""The audit finds what a weak attack left, and finds nothing where the attack was strong."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from attacks.presets import PRESETS, AttackStep, Preset
from bench.analysis.stats import clopper_pearson
from bench.config import RunConfig
from bench.errors import UsageError
from bench.records import RecordsError
from bench.verify import audit as library
from tests.bench.toy_runs import COUNT, RADIUS, make_setup, run

STRONG = (AttackStep("apgd", "apgd", 60, "untargeted", "random", 2.0, options={"restarts": 3}),)
WEAK = (AttackStep("pgd", "pgd", 5, "untargeted", "clean", 0.08),)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"), [(5, 10, 0.18709, 0.81291), (0, 50, 0.0, 0.07112), (3, 3, 0.29240, 1.0)]
)
def test_the_exact_interval(successes, n, low, high):
    assert clopper_pearson(successes, n) == pytest.approx((low, high), abs=1e-4)


def test_of_no_trial_there_is_no_interval():
    with pytest.raises(ValueError, match="no samples"):
        clopper_pearson(0, 0)


def audited(tmp_path, monkeypatch, steps, now=None, **options):
    """An audit of a run; ``now`` is what its data and weights are by then, if not those of the run."""
    found = run(tmp_path, steps, monkeypatch=monkeypatch)
    monkeypatch.setitem(PRESETS, "toy", Preset("", steps))
    monkeypatch.setattr(library, "QUERIES", 60)
    config = RunConfig(
        suite="mini",
        encoder="toy",
        task="zeroshot",
        dataset="toy",
        samples=COUNT,
        attack="toy",
        norm="linf",
        eps=(RADIUS,),
        seed=0,
    )
    monkeypatch.setattr(library, "resolve", lambda request: [config])
    setup = make_setup("toy")
    setup = replace(setup, header=replace(found.header, **now or {}))
    monkeypatch.setattr(library, "prepare", lambda config: setup)
    return library.audit(found, **options)


def named(found):
    return {finding.name: finding for finding in found.findings}


def test_a_weak_attack_is_found_out(tmp_path, monkeypatch):
    found = audited(tmp_path, monkeypatch, WEAK)
    assert named(found)["more steps"].broken > 0
    assert named(found)["more steps"].wins
    assert not named(found)["gradient against differences"].wins
    assert not named(found)["unbounded"].wins or named(found)["unbounded"].broken < 16
    assert found.wins >= 2


def test_a_strong_attack_leaves_little_and_the_bound_says_how_little(tmp_path, monkeypatch):
    found = audited(tmp_path, monkeypatch, STRONG)
    assert found.wins == 0
    more = named(found)["more steps"]
    assert more.most == pytest.approx(100 * found.robust / COUNT * clopper_pearson(0, more.tried)[1])
    assert found.evaluations > 0
    library.save(found)
    assert (tmp_path / "mini").rglob("audit.json")


def test_an_audit_is_written_through_no_link(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / library.FILE).symlink_to(tmp_path / "precious")
    with pytest.raises(RecordsError, match="is a link"):
        library.save(SimpleNamespace(run=str(tmp_path / "run"), as_json=dict))
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize("now", [{"dataset_fingerprint": "other"}, {"weights": {"encoder": "other"}}])
def test_data_or_weights_that_are_others_now_are_not_audited(tmp_path, monkeypatch, now):
    with pytest.raises(UsageError, match=f"{next(iter(now))}.* is 'other' now and was .* when it ran"):
        audited(tmp_path, monkeypatch, WEAK, now=now)


def test_what_cannot_be_audited(tmp_path, monkeypatch):
    black = (replace(WEAK[0], kind="squares"),)
    with pytest.raises(UsageError, match="follows gradients"):
        audited(tmp_path / "a", monkeypatch, black)
    with pytest.raises(UsageError, match="has no radius 3"):
        audited(tmp_path / "b", monkeypatch, STRONG, radius=3.0)
