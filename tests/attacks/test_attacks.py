"""Laws that every attack obeys. A new attack is one more row in ATTACKS."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch

from attacks.apgd import apgd
from attacks.objective import Classification, Progress, TargetedClassification, evaluate, runner_up
from attacks.outcome import Outcome
from attacks.pgd import pgd
from attacks.threat import ThreatModel
from tests.toys import LinearObjective, Recorder, generators, toy_images, trained_toy

Attack = Callable[..., Outcome]


def run_pgd(objective, images, threat, *, steps=30, **options):
    return pgd(objective, images, threat, steps=steps, step_size=4 * threat.eps / max(steps, 1), **options)


def run_pgd_plain(objective, images, threat, **options):
    return run_pgd(objective, images, threat, momentum=0.0, **options)


def run_apgd(objective, images, threat, *, steps=30, **options):
    return apgd(objective, images, threat, steps=steps, **options)


def run_apgd_reference(objective, images, threat, *, steps=30, **options):
    return apgd(objective, images, threat, steps=steps, first_checkpoint="reference", **options)


ATTACKS: dict[str, Attack] = {
    "pgd": run_pgd,
    "pgd-plain": run_pgd_plain,
    "apgd": run_apgd,
    "apgd-reference": run_apgd_reference,
}
THREATS = {"linf": ThreatModel("linf", 16 / 255), "l2": ThreatModel("l2", 0.7)}

every_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
every_threat = pytest.mark.parametrize("threat", THREATS.values(), ids=THREATS.keys())


def toy_objective(loss="ce") -> tuple[Classification, torch.Tensor]:
    toy = trained_toy()
    return Classification(toy.model, toy.labels, loss), toy.images


def weight(seed: int = 3) -> torch.Tensor:
    return torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(seed))


@every_attack
def test_linear_loss_reaches_the_corner_of_the_linf_ball(attack):
    images = toy_images(5)
    images[0], images[1] = 0.0, 1.0  # the box cuts these balls
    outcome = attack(LinearObjective(weight()), images, ThreatModel("linf", 0.1))
    assert torch.equal(outcome.images, (images + 0.1 * weight().sign()).clamp(0, 1))


@every_attack
def test_linear_loss_reaches_the_rim_of_the_l2_ball(attack):
    images = toy_images(5)
    outcome = attack(LinearObjective(weight()), images, ThreatModel("l2", 0.3))
    expected = images + 0.3 * weight() / weight().norm()
    torch.testing.assert_close(outcome.images, expected, rtol=0, atol=2e-6)


@every_attack
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_empty_ball_returns_the_clean_image_bit_for_bit(attack, norm):
    objective, images = toy_objective()
    assert torch.equal(attack(objective, images, ThreatModel(norm, 0.0)).images, images)


@every_attack
@every_threat
def test_no_steps_return_the_start_and_its_loss(attack, threat):
    objective, images = toy_objective()
    outcome = attack(objective, images, threat, steps=0)
    assert torch.equal(outcome.images, images)
    assert torch.equal(outcome.loss, evaluate(objective, images, torch.arange(len(images))).loss)
    assert (outcome.evaluations == 0).all()


@every_attack
@every_threat
@pytest.mark.parametrize("stop", [True, False])
def test_outcome_speaks_of_the_images_it_returns(attack, threat, stop):
    objective, images = toy_objective()
    outcome = attack(objective, images, threat, stop_when_fooled=stop)
    again = evaluate(objective, outcome.images, torch.arange(len(images)))
    torch.testing.assert_close(outcome.loss, again.loss, rtol=1e-4, atol=1e-5)
    assert torch.equal(outcome.fooled, again.fooled)
    assert threat.contains(outcome.images, images).all()
    assert 0 < outcome.fooled.sum() < len(images), "the toy should be neither helpless nor perfect"


@every_attack
@every_threat
def test_the_image_of_highest_loss_is_returned(attack, threat):
    objective, images = toy_objective()
    highest = torch.full((len(images),), -math.inf)

    def watching(candidates, rows):
        progress = objective(candidates, rows)
        highest[rows] = highest[rows].maximum(progress.loss.detach())
        assert threat.contains(candidates.detach(), images[rows]).all()
        return progress

    outcome = attack(watching, images, threat, stop_when_fooled=False)
    assert torch.equal(outcome.loss, highest)


@every_attack
@every_threat
def test_more_steps_never_lower_the_best_loss(attack, threat):
    objective = LinearObjective(weight())
    losses = [attack(objective, toy_images(4), threat, steps=steps).loss for steps in (0, 1, 2, 5, 10, 40)]
    for fewer, more in pairwise(losses):
        assert (more >= fewer - 1e-5).all()
    assert (losses[1] > losses[0]).all()


@every_threat
def test_more_pgd_steps_never_lower_the_best_loss_of_a_curved_model(threat):
    objective, images = toy_objective()
    losses = [
        pgd(objective, images, threat, steps=n, step_size=threat.eps / 5, stop_when_fooled=False).loss
        for n in (0, 1, 2, 5, 20)
    ]
    for fewer, more in pairwise(losses):
        assert (more >= fewer).all()


@every_attack
@every_threat
def test_repeated_runs_agree_bit_for_bit(attack, threat):
    objective, images = toy_objective()
    start = threat.random_start(images, generators(len(images)))
    before = images.clone(), start.clone()
    first, second = (attack(objective, images, threat, init=start) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(images, before[0])
    assert torch.equal(start, before[1])


@every_attack
@every_threat
@pytest.mark.parametrize("stop", [True, False])
def test_eight_together_equal_eight_alone(attack, threat, stop):
    toy = trained_toy()
    images, labels = toy.images[:8], toy.labels[:8]
    start = threat.random_start(images, generators(8))
    together = attack(Classification(toy.model, labels), images, threat, init=start, stop_when_fooled=stop)
    for row in range(8):
        one = slice(row, row + 1)
        objective = Classification(toy.model, labels[one])
        alone = attack(objective, images[one], threat, init=start[one], stop_when_fooled=stop)
        torch.testing.assert_close(alone.images, together.images[one], rtol=0, atol=1e-5)
        torch.testing.assert_close(alone.loss, together.loss[one], rtol=1e-4, atol=1e-5)
        assert torch.equal(alone.fooled, together.fooled[one])
        assert torch.equal(alone.evaluations, together.evaluations[one])


@every_attack
@pytest.mark.parametrize("size", [1, 7])
def test_batches_of_any_size_give_the_same_images(attack, size):
    """The toy computes in float64, so nothing but the attack could make a difference."""
    toy, threat = trained_toy(), THREATS["linf"]
    images, labels = toy.images[:32], toy.labels[:32]
    start = threat.random_start(images, generators(32))
    whole = attack(Classification(toy.model, labels), images, threat, init=start)
    for rows in torch.arange(32).split(size):
        part = attack(Classification(toy.model, labels[rows]), images[rows], threat, init=start[rows])
        torch.testing.assert_close(part.images, whole.images[rows], rtol=0, atol=1e-9)
        torch.testing.assert_close(part.loss, whole.loss[rows], rtol=0, atol=1e-5)
        assert torch.equal(part.fooled, whole.fooled[rows])


@every_attack
@every_threat
@pytest.mark.parametrize("steps", [0, 3])
def test_a_start_outside_the_ball_is_moved_inside(attack, threat, steps):
    images = toy_images(6)
    seen = Recorder(LinearObjective(-weight()))  # the far start is the better one: it must not be returned
    far = images + weight().sign()
    outcome = attack(seen, images, threat, steps=steps, init=far)
    assert threat.contains(outcome.images, images).all()
    if steps == 0:
        assert torch.equal(outcome.images, threat.project(far, images))


@every_attack
def test_each_sample_costs_one_look_more_than_its_gradients(attack):
    objective, images = toy_objective()
    recorder = Recorder(objective)
    outcome = attack(recorder, images, THREATS["linf"])
    looks = torch.zeros(len(images), dtype=torch.int64)
    for rows in recorder.gradient_calls + recorder.plain_calls:
        looks[rows] += 1
    assert torch.equal(looks, outcome.evaluations + 1)
    assert (outcome.evaluations[~outcome.fooled] == 30).all()
    assert (outcome.evaluations[outcome.fooled] <= 30).all()
    assert outcome.evaluations[outcome.fooled].float().mean() < 20
    assert len(recorder.gradient_calls) == 30
    assert len(recorder.plain_calls) == 1


@every_attack
def test_samples_that_are_already_fooled_cost_nothing(attack):
    toy = trained_toy()
    recorder = Recorder(Classification(toy.model, (toy.labels + 1) % 10))
    outcome = attack(recorder, toy.images, THREATS["linf"])
    assert torch.equal(outcome.images, toy.images)
    assert outcome.fooled.all()
    assert (outcome.evaluations == 0).all()
    assert len(recorder.gradient_calls) == 1


@every_attack
def test_without_stopping_every_step_is_spent(attack):
    objective, images = toy_objective()
    outcome = attack(objective, images, THREATS["linf"], stop_when_fooled=False)
    assert (outcome.evaluations == 30).all()
    assert (outcome.loss >= attack(objective, images, THREATS["linf"]).loss - 1e-5).all()


def fault(objective, row: int, call: int, kind: str):
    """The objective, but from the given call on `row` has a loss, or only a gradient, that is not finite."""
    calls = 0

    def faulty(images, rows):
        nonlocal calls
        loss, fooled = objective(images, rows)
        hit = (rows == row) & (calls >= call)
        calls += 1
        if kind == "gradient":  # sqrt has an infinite slope at 0; times zero gives NaN
            loss = loss.index_add(0, hit.nonzero().flatten(), (0 * images[hit]).sum(dim=(1, 2, 3)).sqrt())
        else:
            loss = loss * torch.where(hit, float(kind), 1.0)
            fooled = fooled | hit  # garbage claims success
        return Progress(loss, fooled)

    return faulty


@every_attack
@every_threat
@pytest.mark.parametrize("kind", ["nan", "inf", "-inf", "gradient"])
@pytest.mark.parametrize("call", [0, 4])
@pytest.mark.parametrize("stop", [True, False])
def test_a_fault_in_one_sample_marks_it_and_no_other(attack, threat, kind, call, stop):
    objective, images = toy_objective()
    sound = attack(objective, images, threat, steps=10, stop_when_fooled=stop)
    row = int((~sound.fooled).nonzero()[0])
    faulty = fault(objective, row, call, kind)
    outcome = attack(faulty, images, threat, steps=10, stop_when_fooled=stop)
    others = torch.arange(len(images)) != row
    assert outcome.failed.nonzero().flatten().tolist() == [row]
    assert not outcome.fooled[row]
    assert outcome.loss[row].isnan()
    assert outcome.evaluations[row] == call + (kind == "gradient")
    assert outcome.images.isfinite().all()
    torch.testing.assert_close(outcome.images[others], sound.images[others], rtol=0, atol=1e-5)
    assert torch.equal(outcome.fooled[others], sound.fooled[others])


@every_attack
@every_threat
def test_a_fault_in_the_last_look_counts(attack, threat):
    objective, images = toy_objective()
    outcome = attack(fault(objective, 3, 5, "nan"), images, threat, steps=5, stop_when_fooled=False)
    assert outcome.failed.nonzero().flatten().tolist() == [3]


@every_attack
def test_a_broken_clean_image_fails_alone(attack):
    objective, images = toy_objective()
    images = images.clone()
    images[2, 0, 0, 0] = math.nan
    outcome = attack(objective, images, THREATS["linf"], steps=3)
    assert outcome.failed.nonzero().flatten().tolist() == [2]
    assert not outcome.fooled[2]


@every_attack
def test_an_empty_batch_is_no_error(attack):
    toy = trained_toy()
    outcome = attack(Classification(toy.model, toy.labels[:0]), toy.images[:0], THREATS["l2"])
    assert outcome.images.shape == (0, 3, 8, 8)


@every_attack
@pytest.mark.parametrize("options", [{"steps": -1}, {"init": torch.zeros(1, 3, 8, 8)}])
def test_bad_settings_are_refused(attack, options):
    objective, images = toy_objective()
    with pytest.raises(ValueError, match=r"steps|init"):
        attack(objective, images, THREATS["linf"], **options)


@every_attack
def test_targeted_attacks_break_classifiers_too(attack):
    toy = trained_toy()
    targets = runner_up(toy.model(toy.images), toy.labels, 1)
    outcome = attack(TargetedClassification(toy.model, toy.labels, targets), toy.images, THREATS["linf"])
    assert 0 < outcome.fooled.sum() < len(toy.images)
