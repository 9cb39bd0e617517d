"""What an attack is given of its batch, and what is said of what it gives back."""

import hashlib
from types import SimpleNamespace

import pytest
import torch

from attacks.outcome import Outcome
from attacks.presets import AttackStep
from attacks.threat import ThreatModel
from bench.running.certify import AttackBatch, Conditions, carry_out, certify, start_of
from bench.running.volley import Volley
from tests.bench.toy_runs import make_setup, put_kind

STEPS = tuple(AttackStep(f"a-{k}", "mine", 1, "untargeted", "clean", 0.0, volley="a") for k in (1, 2))
BALL = ThreatModel("linf", 0.1)
CLEAN = torch.rand(3, 3, 2, 2, generator=torch.Generator().manual_seed(0))


def batch(**changes):
    fields = {"volley": Volley(STEPS, make_setup("toy").samples[:3]), "clean": CLEAN, "eps": 4.0, "threat": BALL}
    return AttackBatch(**fields | changes)


def conditions(store=None):
    return Conditions(7, "ours", stop_when_fooled=True, store=store)


def outcome(images, **changes):
    n = len(images)
    whole = Outcome(images, torch.zeros(n), torch.ones(n).bool(), torch.zeros(n).bool(), torch.ones(n).long())
    return whole._replace(**changes)


def test_an_attack_is_given_one_number_of_31_bits_per_sample_which_never_changes(monkeypatch):
    given = []

    def run(goal, images, threat, context):
        given.extend(context.seeds)
        return outcome(images)

    put_kind(monkeypatch, "mine", run)
    carry_out(batch(), None, conditions())
    digests = [hashlib.sha256(repr((7, f"s0{k}", "a-1", 4.0)).encode()).hexdigest() for k in range(3)]
    assert given == [int(digest[:16], 16) // 2 % 2**31 for digest in digests] * 2


def test_some_samples_of_a_batch_keep_their_clean_and_target_images():
    targets = CLEAN.flip(0)
    few = batch(targets=targets).only([2, 0])
    assert [sample.id for sample in few.volley.samples] == ["s02", "s00"]
    assert torch.equal(few.clean, CLEAN[[2, 0]])
    assert torch.equal(few.targets, targets[[2, 0]])
    assert batch().only([1]).targets is None


def test_each_row_of_a_volley_begins_at_the_worst_image_of_its_sample():
    steps = tuple(AttackStep(f"a-{k}", "mine", 1, "untargeted", "best", 0.0) for k in (1, 2))
    worst = CLEAN + 0.05
    store = SimpleNamespace(worst=lambda samples, clean, eps: worst)
    began = start_of(batch(volley=Volley(steps, make_setup("toy").samples[:3])), conditions(store))
    assert torch.equal(began, torch.cat([worst, worst]))


@pytest.mark.parametrize("returned", [None, outcome(CLEAN.double()), outcome(CLEAN, fooled=torch.ones(3))])
def test_what_cannot_be_measured_has_failed_and_shows_the_clean_images(returned):
    found, problems = certify(returned, CLEAN, BALL, STEPS[0])
    assert torch.equal(found.images, CLEAN)
    assert found.failed.all()
    assert not found.fooled.any()
    assert found.loss.isnan().all()
    assert found.evaluations.tolist() == [0, 0, 0]
    assert all("attack step 'a-1' (mine) returned" in problem for problem in problems)


def test_a_sample_whose_attack_failed_is_said_to_have_no_finite_loss():
    found, problems = certify(outcome(CLEAN, failed=torch.tensor([False, True, False])), CLEAN, BALL, STEPS[0])
    assert problems == [None, "the loss or its gradient is not finite", None]
    assert torch.equal(found.images, CLEAN)
