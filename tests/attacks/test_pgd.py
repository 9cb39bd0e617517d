"""What is particular to PGD: its momentum. The laws of all attacks are in test_attacks.py."""

import pytest
import torch

from attacks.objective import Classification, evaluate_with_gradient
from attacks.pgd import BestIterate, LastIterate, accumulated, ascend, constant, cosine, pgd, signed_anew
from attacks.threat import ThreatModel
from tests.toys import Scripted, toy_images, trained_toy

WIDE = ThreatModel("linf", 0.2)


def two_pixels(first: float, second: float) -> torch.Tensor:
    """A gradient (3, 8, 8) that is zero but for two pixels."""
    weights = torch.zeros(3, 8, 8)
    weights[0, 0, 0], weights[0, 0, 1] = first, second
    return weights


def walk(momentum: float, *gradients: torch.Tensor) -> torch.Tensor:
    """Moves of the two pixels in steps of 0.01, the last iterate being the best."""
    count = len(gradients)
    values = torch.arange(count + 1.0)[:, None]
    objective = Scripted(values, torch.stack([*gradients, gradients[-1]]))
    clean = toy_images(1)
    outcome = pgd(objective, clean, WIDE, steps=count, step_size=0.01, momentum=momentum)
    return ((outcome.images - clean)[0, 0, 0, :2] / 0.01).round(decimals=3)


def test_momentum_outlasts_a_weak_opposite_gradient():
    first, second = two_pixels(0.9, 0.1), two_pixels(-0.1, 0.9)  # velocity of pixel 0: 0.81 - 0.1 > 0
    assert walk(0.9, first, second).tolist() == [2.0, 2.0]
    assert walk(0.0, first, second).tolist() == [0.0, 2.0]


def test_gradients_are_weighed_by_their_share_not_their_size():
    first, second = two_pixels(0.9, 0.1), 1000 * two_pixels(-0.1, 0.9)
    assert walk(0.9, first, second).tolist() == [2.0, 2.0]


def test_without_momentum_it_is_sign_ascent():
    toy = trained_toy()
    objective, rows = Classification(toy.model, toy.labels), torch.arange(len(toy.images))
    image, losses, images = toy.images, [], []
    for _ in range(6):
        progress, gradient = evaluate_with_gradient(objective, image, rows, skip_fooled=False)
        losses.append(progress.loss)
        images.append(image)
        image = (image + 0.01 * gradient.sign()).clamp(toy.images - 0.03, toy.images + 0.03).clamp(0, 1)
    best = torch.stack(losses).argmax(dim=0)
    outcome = pgd(
        objective,
        toy.images,
        ThreatModel("linf", 0.03),
        steps=5,
        step_size=0.01,
        momentum=0,
        stop_when_fooled=False,
    )
    torch.testing.assert_close(outcome.images, torch.stack(images)[best, rows], rtol=0, atol=1e-6)


def test_a_falling_step_covers_its_share_of_the_way():
    """Under a constant gradient the way is the sum of the steps: 1 + 0.75 + 0.25 of the first one for three."""
    clean = toy_images(1)
    for schedule, way in ((constant, 0.03), (cosine, 0.02)):
        rising = Scripted(torch.arange(4.0)[:, None], torch.ones(4, 3, 8, 8))
        found = pgd(rising, clean, WIDE, steps=3, step_size=0.01, schedule=schedule)
        torch.testing.assert_close(found.images, clean + way)


@pytest.mark.parametrize("step_size", [-0.1, float("nan")])
def test_bad_step_sizes_are_refused(step_size):
    with pytest.raises(ValueError, match="step_size"):
        pgd(
            Scripted(torch.zeros(2, 1), torch.zeros(2, 3, 8, 8)),
            toy_images(1),
            WIDE,
            steps=1,
            step_size=step_size,
        )


def ascended(keeper, objective, start, images, velocity=None, steps=3):
    ascend(
        objective,
        images,
        WIDE,
        start=start,
        lengths=[0.01] * steps,
        velocity=velocity or accumulated(0.0),
        keeper=keeper,
    )
    return keeper


def test_the_keepers_that_never_wait_return_the_last_and_the_best_iterate():
    values = torch.tensor([[1.0, 1.0], [4.0, 0.5], [2.0, torch.nan], [3.0, 0.0]])
    weights = torch.ones(4, 3, 8, 8)
    clean = toy_images(2)
    last = ascended(LastIterate(clean), Scripted(values[:3], weights[:3]), clean, clean)
    torch.testing.assert_close(last.images, clean + 0.03)
    assert last.finite.tolist() == [True, False]
    best = ascended(BestIterate(clean), Scripted(values, weights), clean, clean)
    torch.testing.assert_close(best.images[0], clean[0] + 0.01)
    assert torch.equal(best.images[1], clean[1])
    assert best.finite.tolist() == [True, False]
    assert best.loss.tolist() == [4.0, 1.0]


def test_a_last_loss_that_is_not_finite_is_seen():
    values = torch.tensor([[1.0], [torch.inf]])
    clean = toy_images(1)
    assert not ascended(BestIterate(clean), Scripted(values, torch.ones(2, 3, 8, 8)), clean, clean, steps=1).finite


def test_an_iterate_outside_the_pixel_box_is_never_the_best():
    clean = torch.full((1, 3, 8, 8), 0.99)
    outside = clean + 0.1
    kept = ascended(
        BestIterate(clean), Scripted(torch.tensor([[9.0], [1.0]]), torch.ones(2, 3, 8, 8)), outside, clean, steps=1
    )
    assert kept.images.max() <= 1
    assert kept.loss.tolist() == [1.0]


def test_velocities_in_closed_form():
    velocity, gradient = torch.full((1, 3, 2, 2), -1.0), torch.full((1, 3, 2, 2), 2.0)
    torch.testing.assert_close(accumulated(0.9)(velocity, gradient), torch.full_like(velocity, -0.9 + 1 / 12))
    torch.testing.assert_close(signed_anew(0.9)(velocity, gradient), torch.ones_like(velocity))
    torch.testing.assert_close(signed_anew(1.5)(velocity, gradient), -torch.ones_like(velocity))
