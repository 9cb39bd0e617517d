"""Ascent on answers alone: the estimated slope of a plane is the plane's, and the best image of the ball is found."""

import torch

from attacks.kinds import StepContext
from attacks.objective import Progress
from attacks.presets import PRESETS, AttackStep
from attacks.queries import QUERY
from attacks.threat import ThreatModel
from tests.toys import LinearObjective, Recorder, toy_images

THREAT = ThreatModel("linf", 8 / 255)


def run(objective, images, steps=8, **options):
    step = AttackStep("q", "queries", steps, "target-said", "clean", 1 / 8, options=options)
    QUERY.check(step)
    return QUERY.run(objective, images, THREAT, StepContext(step, images, list(range(len(images)))))


def test_on_a_plane_eight_steps_of_an_eighth_reach_the_best_corner():
    """A weight of two values: with enough answers every sign of the slope is found."""
    images = 0.5 * torch.ones(2, 3, 2, 2)
    weight = torch.tensor([1.0, -1.0, 1.0])[:, None, None].expand(3, 2, 2)
    found = run(LinearObjective(weight), images, queries=2000)
    torch.testing.assert_close(found.images, images + THREAT.eps * weight)
    torch.testing.assert_close(found.loss, (images * weight).sum((1, 2, 3)) + THREAT.eps * 12)


def test_it_asks_as_often_as_it_says_and_never_for_a_gradient():
    asked = Recorder(LinearObjective(torch.ones(3, 8, 8)))
    run(asked, toy_images(2), steps=3, queries=5)
    assert asked.gradient_calls == []
    assert asked.plain_calls == [[0, 1]] * (3 * (1 + 5) + 1)


def test_the_best_image_on_the_way_is_kept():
    """A loss that is highest at the clean image: nothing better is found, and the clean image is returned."""
    images = toy_images(2)

    def peak(shown, rows):
        return Progress(-(shown - images[rows]).abs().sum((1, 2, 3)), torch.zeros_like(rows, dtype=torch.bool))

    found = run(peak, images, steps=2, queries=3)
    assert torch.equal(found.images, images)


def test_the_preset_has_the_published_constants():
    first, last = PRESETS["attackvlm-tt"].steps
    assert first == PRESETS["attackvlm-ii"].steps[0]
    assert (last.kind, last.steps, last.start, last.first_step * 8, last.options) == ("queries", 8, "best", 1.0, {})
