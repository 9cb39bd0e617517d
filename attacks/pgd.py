"""Projected gradient ascent with steps of given lengths.

`ascend` is the one loop. What varies comes in as an argument: a `Velocity` says how gradients become a direction, a
`Keeper` which image of a sample is the result and whether samples leave the batch on the way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from attacks.objective import Objective, evaluate, evaluate_with_gradient, gradient_of_all
from attacks.outcome import Ledger, Outcome
from attacks.threat import ThreatModel, checked_start

Velocity: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""The velocity so far and a new gradient, both (b, 3, H, W), to the velocity that the next step follows."""


def accumulated(momentum: float) -> Velocity:
    """Gather gradients scaled to unit l1 norm, as MI-FGSM does (Dong et al. 2018, arXiv 1710.06081, section 3.1).

    >>> accumulated(0.5)(torch.ones(1, 1, 1, 2), torch.tensor([[[[3.0, -1.0]]]]))
    tensor([[[[1.2500, 0.2500]]]])
    """
    return lambda velocity, gradient: momentum * velocity + _unit_l1(gradient)


def signed_anew(momentum: float) -> Velocity:
    """Take the sign of the velocity at each step, as the code published with arXiv 2402.12336 does.

    sign(0.9 v + sign g) equals sign g wherever g is not zero: this momentum does nothing.

    >>> signed_anew(0.9)(torch.tensor([-1.0]), torch.tensor([0.1]))
    tensor([1.])
    """
    return lambda velocity, gradient: (momentum * velocity + gradient.sign()).sign()


Schedule: TypeAlias = Callable[[int, int], float]
"""The number of a step, from 0, and of all steps, to the share of the step size that this step has."""


def constant(step: int, steps: int) -> float:
    """The same length for every step."""
    return 1.0


def cosine(step: int, steps: int) -> float:
    """From the whole length down to nothing along half a cosine (Loshchilov & Hutter 2017, arXiv 1608.03983).

    >>> [round(cosine(step, 4), 3) for step in range(4)]
    [1.0, 0.854, 0.5, 0.146]
    """
    return (1 + math.cos(math.pi * step / steps)) / 2


SCHEDULES: Mapping[str, Schedule] = {"constant": constant, "cosine": cosine}


class Keeper(Protocol):
    """What looks at each iterate of an attack and keeps the result."""

    def look(self, objective: Objective, images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Look at iterates (b, 3, H, W) of the samples rows (b,).

        Returns:
            The gradient (b, 3, H, W), and which samples stay in the batch (b,) bool; None where all do.
        """

    def finish(self, objective: Objective, images: Tensor, rows: Tensor) -> None:
        """Look at the last iterates (b, 3, H, W), from which no step is taken."""


class BestOrFirstFooled:
    """The keeper for evaluation: finished samples leave the batch; costs a wait for the device at each step."""

    def __init__(self, start: Tensor, *, stop_when_fooled: bool) -> None:
        self.ledger = Ledger(start, stop_when_fooled=stop_when_fooled)

    def look(self, objective: Objective, images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """As of `Keeper`."""
        skip = self.ledger.stop_when_fooled
        progress, gradient = evaluate_with_gradient(objective, images, rows, skip_fooled=skip)
        _, active = self.ledger.record(rows, images, progress, gradient)
        return gradient, None if active.all() else active

    def finish(self, objective: Objective, images: Tensor, rows: Tensor) -> None:
        """As of `Keeper`."""
        self.ledger.record(rows, images, evaluate(objective, images, rows))


class LastIterate:
    """A keeper that never waits for the device: all samples take all steps, the last iterate is the result.

    Attributes:
        images: (B, 3, H, W).
        finite: (B,) bool, whether every loss and gradient on the way was finite.
    """

    def __init__(self, start: Tensor) -> None:
        self.images = start
        self.finite = torch.ones(len(start), dtype=torch.bool, device=start.device)

    def look(self, objective: Objective, images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """As of `Keeper`."""
        progress, gradient = gradient_of_all(objective, images, rows)
        steepest = gradient.abs().flatten(1).amax(1)  # NaN where one entry is
        self.finite &= progress.loss.isfinite() & steepest.isfinite()
        self._keep(images, progress.loss)
        return gradient, None

    def _keep(self, images: Tensor, loss: Tensor) -> None:
        """Nothing, before the last iterate."""

    def finish(self, objective: Objective, images: Tensor, rows: Tensor) -> None:
        """As of `Keeper`; without a forward pass."""
        self.images = images


class BestIterate(LastIterate):
    """The same, but the result is the iterate of highest loss among those in [0, 1]; one more forward pass.

    Args:
        start: (B, 3, H, W) in [0, 1]: the result where no iterate has a finite loss.
    """

    def __init__(self, start: Tensor) -> None:
        super().__init__(start)
        self.loss = start.new_full((len(start),), -torch.inf)

    def _keep(self, images: Tensor, loss: Tensor) -> None:
        inside = ((images >= 0) & (images <= 1)).flatten(1).all(1)
        better = inside & (loss > self.loss)
        self.images = torch.where(better[:, None, None, None], images, self.images)
        self.loss = torch.where(better, loss, self.loss)

    def finish(self, objective: Objective, images: Tensor, rows: Tensor) -> None:
        """As of `Keeper`."""
        loss = evaluate(objective, images, rows).loss
        self.finite &= loss.isfinite()
        self._keep(images, loss)


def ascend(
    objective: Objective,
    images: Tensor,
    threat: ThreatModel,
    *,
    start: Tensor,
    lengths: Sequence[float],
    velocity: Velocity,
    keeper: Keeper,
) -> None:
    """Take one step of each length along the velocity; the keeper holds the result.

    Args:
        objective: what to ascend, for the B samples.
        images: (B, 3, H, W) float32 clean images in [0, 1].
        threat: the ball into which each iterate is projected.
        start: (B, 3, H, W) first iterate, taken as it is.
        lengths: of the steps, in the threat model's norm, pixel units of [0, 1].
        velocity: how gradients become a direction.
        keeper: what becomes of the iterates.
    """
    clean, current, pushed = images, start, torch.zeros_like(start)
    box = threat.box(clean)
    rows = torch.arange(len(images), device=images.device)
    for length in lengths:
        gradient, active = keeper.look(objective, current, rows)
        if active is not None:
            rows, clean, current, gradient, pushed = (t[active] for t in (rows, clean, current, gradient, pushed))
            if len(rows) == 0:
                return
            box = threat.box(clean)
        pushed = velocity(pushed, gradient)
        current = threat.project(current + length * threat.steepest(pushed), clean, box)
    keeper.finish(objective, current, rows)


def pgd(
    objective: Objective,
    images: Tensor,
    threat: ThreatModel,
    *,
    steps: int,
    step_size: float,
    momentum: float = 0.9,
    schedule: Schedule = constant,
    init: Tensor | None = None,
    stop_when_fooled: bool = True,
) -> Outcome:
    """Projected gradient ascent (Madry et al. 2018, arXiv 1706.06083) with the momentum of MI-FGSM.

    A step goes along the sign of the velocity for linf, along its l2-normalised direction for l2. The code published
    with arXiv 2402.12336 has another velocity (`signed_anew`) and returns the last iterate; here the image of highest
    loss is returned.

    >>> from attacks.objective import Classification
    >>> goal = Classification(lambda images: images.mean((2, 3)), torch.tensor([0]))
    >>> image = torch.tensor([0.5, 0.4, 0.3])[None, :, None, None].expand(1, 3, 2, 2)
    >>> pgd(goal, image, ThreatModel("linf", 0.1), steps=10, step_size=0.02).fooled
    tensor([True])

    Costs at most `steps` + 1 forward and `steps` backward passes.

    Args:
        objective: what to ascend, for the B samples.
        images: (B, 3, H, W) float32 clean images in [0, 1].
        threat: the ball to stay in.
        steps: gradient steps, >= 0.
        step_size: length of the first step in the threat model's norm, pixel units of [0, 1].
        momentum: share of the velocity kept from step to step, 0 for plain PGD.
        schedule: share of the first length that each step has.
        init: (B, 3, H, W) float32 start, moved into the ball first; default the clean images.
        stop_when_fooled: whether a fooled sample leaves the batch with the image that fooled.

    Raises:
        ValueError: negative steps or step_size; images outside [0, 1]; init of another shape.
        TypeError: images are not float32.
    """
    if steps < 0 or not step_size >= 0:
        raise ValueError(f"steps and step_size must be >= 0, got {steps} and {step_size}")
    start = checked_start(images, init, threat)
    keeper = BestOrFirstFooled(start, stop_when_fooled=stop_when_fooled)
    velocity = accumulated(momentum)
    lengths = [step_size * schedule(step, steps) for step in range(steps)]
    ascend(objective, images, threat, start=start, lengths=lengths, velocity=velocity, keeper=keeper)
    return keeper.ledger.outcome()


def _unit_l1(gradient: Tensor) -> Tensor:
    """Each image's gradient (b, 3, H, W) over the sum of its absolute entries; zero stays zero."""
    total = gradient.abs().sum(dim=(1, 2, 3), keepdim=True)
    return gradient / total.clamp_min(torch.finfo(torch.float32).tiny)
