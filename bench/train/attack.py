"""The inner attack: PGD as training needs it, APGD from `attacks`.

`attacks.pgd` drops finished samples from the batch, which costs a wait for the accelerator at every step. In training
no sample finishes early, so the loop here keeps everything on the device; on the default path it gives the same
images bit for bit (tested).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.apgd import apgd
from attacks.objective import Progress
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
    if "first-gradient-outside-box" not in recipe.flaws:
        start = threat.project(start, images)
    decay = INERT_DECAY if "inert-momentum" in recipe.flaws else 0.0
    climb = _last if "last-iterate" in recipe.flaws else _best
    gradient = _gradient(tower, loss, target)
    return climb(gradient, images, start, threat, recipe.inner_steps, recipe.step_size(step), decay)


Gradient = Callable[[Tensor, bool], tuple[Tensor, Tensor | None]]


def _gradient(tower: Tower, loss: Loss, target: Target) -> Gradient:
    def of(images: Tensor, differentiate: bool) -> tuple[Tensor, Tensor | None]:
        """Losses (b,) and, if wanted, the gradient of their sum."""
        leaf = images.detach().requires_grad_(differentiate)
        with torch.set_grad_enabled(differentiate):
            values = loss(tower(leaf), target)
        gradient = torch.autograd.grad(values.sum(), leaf)[0] if differentiate else None
        return values.detach(), gradient

    return of


def _move(current: Tensor, velocity: Tensor, images: Tensor, threat: ThreatModel, size: float) -> Tensor:
    return threat.project(current + size * threat.steepest(velocity), images)


def _finite(values: Tensor, gradient: Tensor) -> Tensor:
    return values.isfinite() & gradient.isfinite().flatten(1).all(1)


def _last(
    gradient_of: Gradient, images: Tensor, start: Tensor, threat: ThreatModel, steps: int, size: float, decay: float
) -> Attacked:
    """`steps` forward and backward passes; returns the last iterate."""
    current, velocity = start, torch.zeros_like(start)
    finite = torch.ones(len(images), dtype=torch.bool, device=images.device)
    for _ in range(steps):
        values, gradient = gradient_of(current, True)
        assert gradient is not None
        finite &= _finite(values, gradient)
        velocity = (decay * velocity + gradient.sign()).sign()
        current = _move(current, velocity, images, threat, size)
    return Attacked(current, finite)


def _best(
    gradient_of: Gradient, images: Tensor, start: Tensor, threat: ThreatModel, steps: int, size: float, decay: float
) -> Attacked:
    """One more forward pass; returns each image's iterate of highest loss among those inside the pixel box."""
    current, velocity = start, torch.zeros_like(start)
    finite = torch.ones(len(images), dtype=torch.bool, device=images.device)
    best, best_loss = threat.project(start, images), torch.full((len(images),), -torch.inf, device=images.device)
    for done in range(steps + 1):
        values, gradient = gradient_of(current, done < steps)
        inside = ((current >= 0) & (current <= 1)).flatten(1).all(1)
        better = inside & (values > best_loss)
        best = torch.where(better[:, None, None, None], current, best)
        best_loss = torch.where(better, values, best_loss)
        if gradient is None:
            finite &= values.isfinite()
            break
        finite &= _finite(values, gradient)
        velocity = (decay * velocity + gradient.sign()).sign()
        current = _move(current, velocity, images, threat, size)
    return Attacked(best, finite)


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

    outcome = apgd(objective, images, threat, steps=recipe.inner_steps, init=start, stop_when_fooled=False)
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
