"""The inner attack: PGD and APGD of `attacks`, with the recipe's flaws.

No sample finishes early in training, so PGD's keepers here are those that never wait for the accelerator.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.apgd import apgd
from attacks.objective import Progress
from attacks.pgd import BestIterate, LastIterate, ascend, signed_anew
from attacks.threat import ThreatModel
from bench.errors import UsageError
from bench.train.objectives import Features, Loss, Target, take
from bench.train.recipe import Recipe

INERT_DECAY = 0.9  # of the momentum that does nothing in the published code

Tower = Callable[[Tensor], Features]


class Attacked(NamedTuple):
    """Attacked images (b, 3, H, W), and whether every loss and gradient on the way was finite, (b,) bool."""

    images: Tensor
    finite: Tensor


def attack(
    tower: Tower, loss: Loss, images: Tensor, target: Target, noise: Tensor, recipe: Recipe, step: int
) -> Attacked:
    """Attack a batch as the recipe says.

    Args:
        tower: images -> features, in evaluation mode and with frozen weights.
        loss: to ascend.
        images: (b, 3, H, W) float32 in [0, 1].
        target: what the images are held to.
        noise: (b, 3, H, W) uniform in [0, 1), for the random start.
        recipe: radius, steps, flaws.
        step: index of the update, for the ramp.
    """
    threat = ThreatModel("linf", recipe.radius(step))
    start = images + threat.eps * (2 * noise - 1)
    if recipe.attack == "apgd":
        return _apgd(tower, loss, images, target, start, threat, recipe)
    return _pgd(tower, loss, images, target, start, threat, recipe, step)


def _pgd(
    tower: Tower,
    loss: Loss,
    images: Tensor,
    target: Target,
    start: Tensor,
    threat: ThreatModel,
    recipe: Recipe,
    step: int,
) -> Attacked:
    """PGD with a constant step; the flaws of the published training code by name."""

    def objective(images: Tensor, rows: Tensor) -> Progress:
        values = loss(tower(images), target)  # no row leaves the batch
        return Progress(values, torch.zeros_like(values, dtype=torch.bool))

    inside = threat.project(start, images)
    keeper = (LastIterate if "last-iterate" in recipe.flaws else BestIterate)(inside)
    ascend(
        objective,
        images,
        threat,
        start=start if "first-gradient-outside-box" in recipe.flaws else inside,
        lengths=[recipe.step_size(step)] * recipe.inner_steps,
        velocity=signed_anew(INERT_DECAY if "inert-momentum" in recipe.flaws else 0.0),
        keeper=keeper,
    )
    return Attacked(keeper.images, keeper.finite)


def _apgd(
    tower: Tower, loss: Loss, images: Tensor, target: Target, start: Tensor, threat: ThreatModel, recipe: Recipe
) -> Attacked:
    """APGD with a first step of 2 eps; the flaws of the published training code by name."""
    if "apgd-misclassified" in recipe.flaws and target.labels is None:
        raise UsageError("the flaw apgd-misclassified compares with class ids: use images with labels, or leave it out")
    seen = _LastMisclassified(images, target.labels)
    normalised, misclassified = "apgd-normalised" in recipe.flaws, "apgd-misclassified" in recipe.flaws
    if "apgd-clean-start" in recipe.flaws:
        start = images

    def objective(images: Tensor, rows: Tensor) -> Progress:
        features = tower(images)
        if normalised:
            features = features._replace(embedding=F.normalize(features.embedding, dim=-1))
        values = loss(features, take(target, rows))
        if misclassified:
            seen.look(images, rows, features.embedding)
        return Progress(values, torch.zeros_like(values, dtype=torch.bool))

    outcome = apgd(
        objective,
        images,
        threat,
        steps=recipe.inner_steps,
        init=start,
        stop_when_fooled=False,
        first_checkpoint="reference" if "apgd-first-checkpoint" in recipe.flaws else "start",
    )
    return Attacked(seen.images if misclassified else outcome.images, ~outcome.failed)


class _LastMisclassified:
    """The last candidate whose largest embedding dimension is not the class id; the clean image if there is none."""

    def __init__(self, images: Tensor, labels: Tensor | None) -> None:
        self.images = images.clone()
        self.labels = labels
        self.looks = 0

    def look(self, candidates: Tensor, rows: Tensor, embedding: Tensor) -> None:
        self.looks += 1
        if self.labels is None or self.looks == 1:  # the start does not count
            return
        wrong = embedding.argmax(-1) != self.labels[rows]
        self.images[rows[wrong]] = candidates.detach()[wrong]
