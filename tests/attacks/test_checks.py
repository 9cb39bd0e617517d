"""Each way of hiding a gradient fails its check; a sound model fails none."""

import pytest
import torch

from attacks.apgd import apgd
from attacks.checks import REACHES, gradient_check, logits_check, noise_check, repeatable_check, slope_check
from attacks.objective import Classification, Progress
from attacks.threat import ThreatModel
from tests.toys import LinearObjective, generators, toy_images, trained_toy


class KilledGradient(torch.autograd.Function):
    """Identity forward, zero backward."""

    @staticmethod
    def forward(ctx, images):
        return images.clone()

    @staticmethod
    def backward(ctx, gradient):
        return torch.zeros_like(gradient)


def check_through(wrap, count=48):
    toy = trained_toy()
    objective = Classification(lambda images: toy.model(wrap(images)), toy.labels[:count])
    return gradient_check(objective, toy.images[:count])


def test_a_sound_model_passes():
    assert check_through(lambda images: images).ok


def test_killed_gradients_are_seen():
    found = check_through(KilledGradient.apply)
    assert (found.name, found.ok) == ("gradient", False)
    assert "48 have an all-zero gradient" in found.detail


def test_quantised_inputs_are_seen():
    assert not check_through(lambda images: (images * 255).round() / 255).ok


def test_detached_models_are_seen():
    found = check_through(lambda images: images.detach())
    assert not found.ok
    assert "no gradient" in found.detail


def test_one_broken_sample_is_counted():
    def breaking(images):
        broken = images.clone()
        broken[1] = broken[1] * torch.nan
        return broken

    found = check_through(breaking, count=4)
    assert not found.ok
    assert "of 4 samples, 0 have an all-zero gradient, 1 a non-finite" in found.detail


def test_saturated_cross_entropy_is_seen_and_dlr_helps():
    toy = trained_toy()
    hot = lambda images: 1e4 * toy.model(images)  # noqa: E731
    assert not gradient_check(Classification(hot, toy.labels), toy.images).ok
    assert gradient_check(Classification(hot, toy.labels, "dlr"), toy.images).ok


THREAT = ThreatModel("linf", 16 / 255)


def objective(wrap=lambda images: images, output=lambda logits: logits):
    toy = trained_toy()
    return Classification(lambda images: output(toy.model(wrap(images))), toy.labels), toy.images


def test_a_repeatable_model_passes_and_a_randomised_one_does_not():
    assert repeatable_check(*objective()).ok
    found = repeatable_check(*objective(lambda images: images + 0.01 * torch.randn_like(images)))
    assert not found.ok
    assert "have another loss" in found.detail


def test_logits_pass_and_probabilities_do_not():
    assert logits_check(*objective()).ok
    assert not logits_check(*objective(output=lambda logits: logits.softmax(1))).ok
    assert logits_check(LinearObjective(torch.ones(3, 8, 8)), toy_images(2)) is None


def test_probabilities_of_a_sigmoid_do_not_look_like_a_softmax():
    assert logits_check(*objective(output=torch.sigmoid)).ok


def test_an_attack_beats_noise_unless_its_gradient_is_killed():
    goal, images = objective()
    seeds = range(len(images))
    start = THREAT.random_start(images, generators(len(images), seed=5))
    assert noise_check(goal, images, apgd(goal, images, THREAT, steps=10, init=start), THREAT, seeds).ok
    killed, _ = objective(KilledGradient.apply)
    stuck = apgd(killed, images, THREAT, steps=10, init=start)
    found = noise_check(killed, images, stuck, THREAT, seeds)
    assert not found.ok
    assert "one random image" in found.detail


def test_samples_that_noise_fools_say_nothing_of_the_attack():
    toy = trained_toy()
    wrong = Classification(toy.model, (toy.labels + 1) % 10)  # fooled whatever the image
    idle = apgd(wrong, toy.images, THREAT, steps=0)
    assert noise_check(wrong, toy.images, idle, THREAT, range(48)).ok


# ---- The gradient against differences of the loss -------------------------------------------------------------------


def slopes(loss, count=8):
    """The check on a loss (b,) of images (b, 3, 8, 8)."""

    def objective(images, rows):
        return Progress(loss(images), torch.zeros_like(rows, dtype=torch.bool))

    return slope_check(objective, toy_images(count), range(count))


def total(images):
    return images.sum((1, 2, 3))


def stairs(images, height):
    """Rounded down to a multiple of a height, with the gradient of the image."""
    return images + ((images / height).floor() * height - images).detach()


@pytest.mark.parametrize(
    ("loss", "ok"),
    [
        (total, True),
        (lambda images: total(images) * 0 + 5, True),  # flat: nothing to say
        (lambda images: total(images.detach()) + 0 * total(images), False),
        (lambda images: total(images.detach()) + 1e-9 * total(images - images.detach()), False),
        (lambda images: total(images.detach()) - total(images - images.detach()), False),
        (lambda images: total(stairs(images, 1 / 4096)), True),  # too fine to hold up an attack
        (lambda images: total((images * 30).round() / 30), False),
    ],
    ids=["linear", "flat", "cut", "shrunken", "turned", "fine stairs", "quantised"],
)
def test_a_gradient_is_held_against_differences(loss, ok):
    assert slopes(loss).ok is ok


def test_flatness_at_one_reach_excuses_nothing_at_another(monkeypatch):
    monkeypatch.setattr("attacks.checks.REACHES", (1e-9, *REACHES))
    assert not slopes(lambda images: total(images.detach()) + 0 * total(images)).ok


def test_a_slope_that_bends_agrees_at_the_shorter_reach():
    """Of s + 10^6 s^3 / 3 about zero, differences at r have the slope 1 + 10^6 r^2 / 3: 2.3 at 0.5/255, 1.3 at half."""

    def bent(images):
        moved = (images - toy_images(8)).flatten(1)[:, :1].sum(1)
        return 50 * (moved + 1e6 * moved**3 / 3)

    found = slopes(bent)
    assert found.ok
    assert "0.25/255" in found.detail
