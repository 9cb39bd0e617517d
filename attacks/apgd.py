"""Auto-PGD: projected gradient ascent that halves its own step when progress stalls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal, get_args

import torch
from torch import Tensor

from attacks.objective import Objective, Progress, evaluate, evaluate_with_gradient
from attacks.outcome import Ledger, Outcome
from attacks.threat import ThreatModel, checked_start

# Croce & Hein 2020 (arXiv 2003.01690), section 3 and appendix; the same numbers as in their released code.
FIRST_WINDOW = 0.22  # share of all steps before the first checkpoint
WINDOW_SHRINK = 0.03  # share by which each later window is shorter
SHORTEST_WINDOW = 0.06  # share below which windows do not shrink
STEADY_RISE = 0.75  # the loss must rise in more than this share of a window's steps to keep the step size
INERTIA = 0.75  # weight of the new gradient step; the rest continues the last move

FirstCheckpoint = Literal["start", "reference"]


def apgd(
    objective: Objective,
    images: Tensor,
    threat: ThreatModel,
    *,
    steps: int,
    init: Tensor | None = None,
    first_step: float = 2.0,
    stop_when_fooled: bool = True,
    first_checkpoint: FirstCheckpoint = "start",
    siblings: Tensor | None = None,
    confirm: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Outcome:
    """Auto-PGD (Croce & Hein 2020, arXiv 2003.01690, section 3), with a step size of its own for each sample.

    Deterministic, and each sample's path is independent of the batch it is in. Samples that are fooled or
    failed leave the batch at once. Costs at most `steps` + 1 forward and `steps` backward passes.

    Deviations from the released code: it counts, at the first checkpoint, whether the loss after step 1 is
    above zero instead of above the loss of the start (one free rise for positive losses, none for negative);
    `first_checkpoint="reference"` does the same. It attacks fooled samples on and returns the last image that
    fooled; here the first one is returned.

    >>> from attacks.objective import Classification
    >>> goal = Classification(lambda images: images.mean((2, 3)), torch.tensor([0]))
    >>> image = torch.tensor([0.5, 0.4, 0.3])[None, :, None, None].expand(1, 3, 2, 2)
    >>> apgd(goal, image, ThreatModel("linf", 0.1), steps=10).fooled
    tensor([True])

    Args:
        objective: what to ascend, for the B samples.
        images: (B, 3, H, W) float32 clean images in [0, 1].
        threat: the ball to stay in.
        steps: gradient steps, >= 0.
        init: (B, 3, H, W) float32 start, moved into the ball first; default the clean images.
        first_step: first step size in units of eps: 2 in AutoAttack, 1 in the attacks on vision-language
            models of arXiv 2402.12336.
        stop_when_fooled: whether a fooled sample leaves the batch with the image that fooled.
        first_checkpoint: what the loss after the first step is compared with: "start" or "reference".
        siblings: (B,) int64: rows of equal number are one image under several goals; once one of them is fooled,
            all leave the batch. Without effect unless `stop_when_fooled`.
        confirm: for goals of which the objective cannot tell whether they are reached, such as a caption of no worth:
            asked at each checkpoint with the best images (b, 3, H, W) and rows (b,) of the samples that are left, it
            says (b,) bool which of them fool. Without effect unless `stop_when_fooled`.

    Raises:
        ValueError: negative steps or first_step; unknown first_checkpoint; images outside [0, 1]; init of
            another shape.
        TypeError: images are not float32.
    """
    if steps < 0 or not first_step >= 0:
        raise ValueError(f"steps and first_step must be >= 0, got {steps} and {first_step}")
    if first_checkpoint not in get_args(FirstCheckpoint):
        choices = get_args(FirstCheckpoint)
        raise ValueError(f"first_checkpoint must be one of {choices}, got {first_checkpoint!r}")
    start = checked_start(images, init, threat)
    ledger = Ledger(start, stop_when_fooled=stop_when_fooled)
    climb = _Climb.begin(images.detach(), start, threat, first_step)
    windows = dict(zip(checkpoints(steps), _windows(steps), strict=True))
    for done in range(steps):
        if len(climb.rows) == 0:
            return ledger.outcome()
        progress, climb.gradient = evaluate_with_gradient(
            objective, climb.image, climb.rows, skip_fooled=stop_when_fooled
        )
        improved, active = ledger.record(climb.rows, climb.image, progress, climb.gradient)
        climb.observe(progress, improved)
        if done == 0:
            climb.settle(first_checkpoint)
        if siblings is not None and stop_when_fooled:
            active &= ~torch.isin(siblings[climb.rows], siblings[ledger.fooled])
        if not active.all():
            climb = climb.keep(active)
        if done in windows:
            climb.review(windows[done], ledger)
            if confirm is not None and stop_when_fooled:
                climb = climb.keep(~ledger.settle(climb.rows, confirm(ledger.images[climb.rows], climb.rows)))
        climb.move(threat, INERTIA if done > 0 else 1.0)
    if len(climb.rows) > 0:
        ledger.record(climb.rows, climb.image, evaluate(objective, climb.image, climb.rows))
    return ledger.outcome()


def checkpoints(steps: int) -> list[int]:
    """After how many steps the step size is reviewed.

    >>> checkpoints(100)
    [22, 41, 57, 70, 80, 87, 93, 99]
    """
    reached, result = 0, []
    for window in _windows(steps):
        reached += window
        result.append(reached)
    return result


def _windows(steps: int) -> list[int]:
    """Lengths of the stretches of steps that end in a checkpoint."""
    window = max(int(FIRST_WINDOW * steps), 1)
    shrink = max(int(WINDOW_SHRINK * steps), 1)
    shortest = max(int(SHORTEST_WINDOW * steps), 1)
    result: list[int] = []
    while sum(result) + window <= steps:
        result.append(window)
        window = max(window - shrink, shortest)
    return result


@dataclass
class _Climb:
    """Where each of the b samples still in the batch stands; the first dimension of every field is b."""

    rows: Tensor  # which of the B samples
    clean: Tensor
    lower: Tensor  # pixel bounds of the allowed images
    upper: Tensor
    image: Tensor  # the current iterate
    previous: Tensor  # the iterate before it
    gradient: Tensor  # at the current iterate
    best_gradient: Tensor  # at the image of highest loss, which the ledger keeps
    step: Tensor  # (b, 1, 1, 1) pixel units
    last_loss: Tensor  # (b,)
    rises: Tensor  # (b,) steps since the last checkpoint that raised the loss
    halved: Tensor  # (b,) bool, the step size was halved at the last checkpoint
    reviewed_loss: Tensor  # (b,) highest loss at the last checkpoint

    @classmethod
    def begin(cls, clean: Tensor, start: Tensor, threat: ThreatModel, first_step: float) -> _Climb:
        rows = torch.arange(len(clean), device=clean.device)
        lower, upper = threat.box(clean)
        nothing, zero = torch.zeros_like(start), start.new_zeros(len(start))
        return cls(
            rows=rows,
            clean=clean,
            lower=lower,
            upper=upper,
            image=start,
            previous=start,
            gradient=nothing,
            best_gradient=nothing,
            step=start.new_full((len(start), 1, 1, 1), first_step * threat.eps),
            last_loss=zero,
            rises=torch.zeros_like(rows),
            halved=torch.ones_like(rows, dtype=torch.bool),  # the first checkpoint ignores a missing new best
            reviewed_loss=zero,
        )

    def keep(self, active: Tensor) -> _Climb:
        """Only the samples of the mask (b,)."""
        return _Climb(**{field.name: getattr(self, field.name)[active] for field in fields(self)})

    def observe(self, progress: Progress, improved: Tensor) -> None:
        """Take in loss and gradient of the current image."""
        if improved.all():
            self.best_gradient = self.gradient
        elif improved.any():
            self.best_gradient = torch.where(improved[:, None, None, None], self.gradient, self.best_gradient)
        self.rises = self.rises + (progress.loss > self.last_loss)
        self.last_loss = progress.loss

    def settle(self, first_checkpoint: FirstCheckpoint) -> None:
        """The start has been looked at: no step yet, hence no rise."""
        self.rises = torch.zeros_like(self.rises)
        if first_checkpoint == "reference":
            self.last_loss = torch.zeros_like(self.last_loss)

    def review(self, window: int, ledger: Ledger) -> None:
        """At a checkpoint: after too few rises or no new best, halve the step, go back to the best image."""
        best_loss = ledger.loss[self.rows]
        wavering = self.rises <= STEADY_RISE * window
        stuck = ~self.halved & (best_loss <= self.reviewed_loss)
        self.halved = wavering | stuck
        self.reviewed_loss = best_loss
        self.rises = torch.zeros_like(self.rises)
        if not self.halved.any():
            return
        back = self.halved[:, None, None, None]
        self.step = torch.where(back, self.step / 2, self.step)
        self.image = torch.where(back, ledger.images[self.rows], self.image)
        self.gradient = torch.where(back, self.best_gradient, self.gradient)

    def move(self, threat: ThreatModel, fresh: float) -> None:
        """A gradient step, of weight `fresh`, mixed with a continuation of the last move."""
        box = self.lower, self.upper
        ahead = threat.project(threat.steepest(self.gradient).mul_(self.step).add_(self.image), self.clean, box)
        mixed = ahead.sub_(self.image).mul_(fresh).add_(self.image)
        if fresh < 1:
            mixed += (self.image - self.previous).mul_(1 - fresh)
        self.previous, self.image = self.image, threat.project(mixed, self.clean, box)
