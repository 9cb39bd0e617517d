"""What an attack maximises: the Objective protocol, per-sample losses, and objectives for classifiers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

DLR_GUARD = 1e-12
"""Keeps the DLR denominators positive (Croce & Hein 2020, arXiv 2003.01690, released code)."""


class Progress(NamedTuple):
    """What an objective says of a batch of b candidate images. Row i depends on image i only.

    Attributes:
        loss: (b,); the attack ascends it, so a targeted goal is a negated loss.
        fooled: (b,) bool; true where the image already does what the attacker wants.
    """

    loss: Tensor
    fooled: Tensor


class Objective(Protocol):
    """Built for one batch of B samples; closes over their labels, prompts or targets."""

    def __call__(self, images: Tensor, rows: Tensor) -> Progress:
        """Score images (b, 3, H, W) in [0, 1]; rows (b,) int64 names the sample of each, out of B."""


class NotDifferentiableError(RuntimeError):
    """The loss of an objective is cut off from the images, so that no gradient attack can run on it."""


def evaluate(objective: Objective, images: Tensor, rows: Tensor) -> Progress:
    """One forward pass without gradient: float32 losses (b,) and whether they fool (b,), of images (b, 3, H, W).

    >>> model = lambda images: images.flatten(1)[:, :3]
    >>> evaluate(Classification(model, torch.tensor([0])), torch.ones(1, 3, 2, 2), torch.tensor([0])).fooled
    tensor([False])
    """
    with torch.no_grad():
        return _checked(objective(images, rows), rows)


def evaluate_with_gradient(
    objective: Objective, images: Tensor, rows: Tensor, *, skip_fooled: bool
) -> tuple[Progress, Tensor]:
    """One forward pass, and a backward pass for the samples that need it.

    Rows are independent, so the gradient of the summed loss holds each sample's own gradient. A row whose
    loss is not finite, or (if `skip_fooled`) that is already fooled, gets no gradient; if no row needs one,
    there is no backward pass. Gradients of model parameters are left alone.

    Returns:
        Progress as of `evaluate`, and the gradient (b, 3, H, W), meaningless in the rows without one.

    Raises:
        NotDifferentiableError: the loss does not depend on the images through differentiable operations.
    """
    leaf, progress = _forward(objective, images, rows)
    wanted = progress.loss.isfinite()
    if skip_fooled:
        wanted = wanted & ~progress.fooled
    detached = Progress(progress.loss.detach(), progress.fooled)
    if not wanted.any():
        return detached, torch.zeros_like(images)
    return detached, _backward(progress.loss, leaf, wanted)


def gradient_of_all(objective: Objective, images: Tensor, rows: Tensor) -> tuple[Progress, Tensor]:
    """One forward and one backward pass for all samples, without a wait for the device.

    Returns:
        Progress as of `evaluate`, and the gradient (b, 3, H, W), meaningless where a loss is not finite.

    Raises:
        NotDifferentiableError: as of `evaluate_with_gradient`.
    """
    leaf, progress = _forward(objective, images, rows)
    gradient = _backward(progress.loss, leaf, torch.ones_like(progress.fooled))
    return Progress(progress.loss.detach(), progress.fooled), gradient


def _forward(objective: Objective, images: Tensor, rows: Tensor) -> tuple[Tensor, Progress]:
    leaf = images.detach().requires_grad_()
    with torch.enable_grad():
        return leaf, _checked(objective(leaf, rows), rows)


def _backward(loss: Tensor, leaf: Tensor, wanted: Tensor) -> Tensor:
    if not loss.requires_grad:
        raise NotDifferentiableError("the objective's loss carries no gradient with respect to the images")
    (gradient,) = torch.autograd.grad(loss, leaf, grad_outputs=wanted.to(loss.dtype), materialize_grads=True)
    return gradient


def _checked(progress: Progress, rows: Tensor) -> Progress:
    """Refuse anything but one loss and one word on fooling per sample: a batch mean would silently couple samples."""
    loss, fooled = progress
    if loss.shape != rows.shape or fooled.shape != rows.shape or fooled.dtype != torch.bool:
        raise ValueError(
            f"an objective returns loss (b,) and fooled (b,) bool for b = {len(rows)}; "
            f"got {tuple(loss.shape)} and {tuple(fooled.shape)} {fooled.dtype}"
        )
    return Progress(loss.float(), fooled.detach())


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy (b,) in nats, of logits (b, K) and labels (b,) int64.

    >>> cross_entropy(torch.zeros(1, 4), torch.tensor([2])).exp()
    tensor([4.])
    """
    return F.cross_entropy(logits.float(), labels, reduction="none")


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Difference of logits ratio (b,), Croce & Hein 2020 (arXiv 2003.01690), section 4, of logits (b, K).

    -(z_y - max_{i != y} z_i) / (z_(1) - z_(3)), with z_(k) the k-th largest logit. Invariant to shift and
    scale of the logits, so that it does not saturate as cross-entropy does; positive where misclassified.

    >>> dlr(torch.tensor([[4.0, 2.0, 0.0]]), torch.tensor([0]))
    tensor([-0.5000])

    Raises:
        ValueError: fewer than 3 classes.
    """
    _require_classes(logits, 3, "DLR")
    logits = logits.float()
    top = logits.topk(3, dim=1).values
    label_logit = _pick(logits, labels)
    rival = logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
    return -(label_logit - rival) / (top[:, 0] - top[:, 2] + DLR_GUARD)


def targeted_dlr(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Targeted difference of logits ratio (b,), Croce & Hein 2020 (arXiv 2003.01690), section 4.

    -(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2) of logits (b, K), labels (b,) and targets (b,), both int64.

    >>> targeted_dlr(torch.tensor([[4.0, 3.0, 1.0, 1.0]]), torch.tensor([0]), torch.tensor([1]))
    tensor([-0.3333])

    Raises:
        ValueError: fewer than 4 classes.
    """
    _require_classes(logits, 4, "targeted DLR")
    logits = logits.float()
    top = logits.topk(4, dim=1).values
    scale = top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + DLR_GUARD
    return -(_pick(logits, labels) - _pick(logits, targets)) / scale


def squared_l2(embeddings: Tensor, reference: Tensor) -> Tensor:
    """Squared Euclidean distance (b,) between rows of two (b, D); neither root nor mean over D.

    The objective of FARE (Schlarmann et al. 2024, arXiv 2402.12336, section 3). Its gradient vanishes where
    the two agree: attack it from a random start.

    >>> squared_l2(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2))
    tensor([25.])
    """
    return (embeddings.float() - reference.float()).square().sum(dim=-1)


def runner_up(logits: Tensor, labels: Tensor, rank: int) -> Tensor:
    """The `rank`-th most likely class other than the label, (b,) int64; rank 1 is the strongest rival.

    For correctly classified samples and ranks 1 to 9 these are the targets of APGD-T in AutoAttack.

    >>> runner_up(torch.tensor([[4.0, 1.0, 3.0]]), torch.tensor([0]), rank=1)
    tensor([2])

    Raises:
        ValueError: rank is not in 1..K-1.
    """
    classes = logits.shape[1]
    if not 1 <= rank < classes:
        raise ValueError(f"rank must be in 1..{classes - 1} for {classes} classes, got {rank}")
    rivals = logits.scatter(1, labels[:, None], -torch.inf)
    return rivals.topk(rank, dim=1).indices[:, -1]


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The strongest rival's logit above the label's (b,), of logits (b, K): it neither saturates nor rescales.

    >>> margin(torch.tensor([[4.0, 1.0, 3.0]]), torch.tensor([0]))
    tensor([-1.])
    """
    logits = logits.float()
    return logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1) - _pick(logits, labels)


def targeted_margin(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """The target's logit above the label's (b,), of logits (b, K), labels (b,) and targets (b,).

    >>> targeted_margin(torch.tensor([[4.0, 1.0, 3.0]]), torch.tensor([0]), torch.tensor([1]))
    tensor([-3.])
    """
    logits = logits.float()
    return _pick(logits, targets) - _pick(logits, labels)


LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"ce": cross_entropy, "dlr": dlr, "margin": margin}
TARGETED_LOSSES: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "dlr": targeted_dlr,
    "margin": targeted_margin,
}


@dataclass(frozen=True)
class Classification:
    """Make a classifier wrong: maximise cross-entropy, DLR or the margin of the label.

    Args:
        model: images (b, 3, H, W) in [0, 1] to logits (b, K).
        labels: (B,) int64.
        loss: "ce", "dlr" or "margin".
    """

    model: Callable[[Tensor], Tensor]
    labels: Tensor
    loss: Literal["ce", "dlr", "margin"] = "ce"

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"loss must be one of {tuple(LOSSES)}, got {self.loss!r}")

    def __call__(self, images: Tensor, rows: Tensor) -> Progress:
        """Score images (b, 3, H, W); fooled where the argmax is not the label."""
        logits, labels = self.model(images), self.labels[rows]
        return Progress(LOSSES[self.loss](logits, labels), logits.argmax(dim=1) != labels)


@dataclass(frozen=True)
class TargetedClassification:
    """Make a classifier wrong by way of a target class: maximise targeted DLR, or its margin. Any wrong answer counts.

    Args:
        model: images (b, 3, H, W) in [0, 1] to logits (b, K), K >= 4.
        labels: (B,) int64.
        targets: (B,) int64, e.g. of `runner_up`.
        loss: "dlr" or "margin".

    Raises:
        ValueError: a target equals its label (the loss would be constant), or there is no such loss.
    """

    model: Callable[[Tensor], Tensor]
    labels: Tensor
    targets: Tensor
    loss: Literal["dlr", "margin"] = "dlr"

    def __post_init__(self) -> None:
        if self.loss not in TARGETED_LOSSES:
            raise ValueError(f"loss must be one of {tuple(TARGETED_LOSSES)} towards a target, got {self.loss!r}")
        if (self.targets == self.labels).any():
            raise ValueError("a target class equals its label")

    def __call__(self, images: Tensor, rows: Tensor) -> Progress:
        """Score images (b, 3, H, W); fooled where the argmax is not the label, whichever class it is."""
        logits, labels = self.model(images), self.labels[rows]
        loss = TARGETED_LOSSES[self.loss](logits, labels, self.targets[rows])
        return Progress(loss, logits.argmax(dim=1) != labels)


def side_by_side(objectives: Sequence[Objective]) -> Objective:
    """One objective for G goals on the same B samples: row g B + i is the i-th sample under the g-th goal.

    One forward pass then serves rows of any goal.

    >>> labels = torch.tensor([0, 0])
    >>> goals = [TargetedClassification(abs, labels, labels + rank) for rank in (1, 2)]
    >>> side_by_side(goals).targets
    tensor([1, 1, 2, 2])

    Raises:
        TypeError: several objectives that are not `TargetedClassification`, or of different models.
    """
    if len(objectives) == 1:
        return objectives[0]
    ensembles = [one for one in objectives if isinstance(one, Ensemble)]
    if len(ensembles) == len(objectives):
        by_model = zip(*(one.parts for one in ensembles), strict=True)
        return Ensemble(tuple(side_by_side(parts) for parts in by_model), ensembles[0].weights)
    targeted = [one for one in objectives if isinstance(one, TargetedClassification)]
    if len(targeted) < len(objectives) or any(one.model != targeted[0].model for one in targeted):
        raise TypeError("only targeted attacks on one classifier can be carried out side by side")
    labels, targets = (torch.cat([getattr(one, name) for one in targeted]) for name in ("labels", "targets"))
    return replace(targeted[0], labels=labels, targets=targets)


class Expectation:
    """The mean of a randomised model's objective over draws (EoT; Athalye et al. 2018, arXiv 1707.07397).

    Each look at a sample has draws of its own, numbered from its first look, so that a sample's path depends on no
    other. Fooled where all draws are.

    Args:
        part: rows (b,), how often each was looked at before (b,), number of the draw -> the objective of those b rows,
            asked as rows 0 to b - 1.
        size: B.
        draws: in each look.
    """

    def __init__(self, part: Callable[[Tensor, Tensor, int], Objective], size: int, draws: int) -> None:
        self.part, self.size, self.draws = part, size, draws
        self._looks = torch.zeros(size, dtype=torch.int64)

    def with_each(self, change: Callable[[Objective], Objective]) -> Expectation:
        """The same with every draw's objective changed."""
        return Expectation(lambda rows, looks, draw: change(self.part(rows, looks, draw)), self.size, self.draws)

    def __call__(self, images: Tensor, rows: Tensor) -> Progress:
        """Score images (b, 3, H, W)."""
        looks, own = self._looks[rows.cpu()], torch.arange(len(rows), device=rows.device)
        self._looks[rows.cpu()] += 1
        found = [self.part(rows, looks, draw)(images, own) for draw in range(self.draws)]
        losses = torch.stack([progress.loss for progress in found])
        return Progress(losses.mean(0), torch.stack([progress.fooled for progress in found]).all(0))


@dataclass(frozen=True)
class Ensemble:
    """The weighted sum of several models' losses on the same images; fooled where all models are.

    >>> def level(x):
    ...     return lambda images, rows: Progress((images - x).abs().amax((1, 2, 3)), rows < 0)
    >>> Ensemble((level(0), level(1)), (0.75, 0.25))(torch.zeros(1, 3, 2, 2), torch.tensor([0])).loss
    tensor([0.2500])

    Args:
        parts: one objective per model, all of the same B samples.
        weights: of the parts.
    """

    parts: tuple[Objective, ...]
    weights: tuple[float, ...]

    def with_each(self, change: Callable[[Objective], Objective]) -> Ensemble:
        """The same with every model's objective changed."""
        return replace(self, parts=tuple(map(change, self.parts)))

    def __call__(self, images: Tensor, rows: Tensor) -> Progress:
        """Score images (b, 3, H, W)."""
        found = [part(images, rows) for part in self.parts]
        losses = torch.stack([weight * one.loss.float() for weight, one in zip(self.weights, found, strict=True)])
        return Progress(losses.sum(0), torch.stack([one.fooled for one in found]).all(0))


def with_margin(objective: Objective) -> Objective:
    """A classifier's objective by its margin; others as they are."""
    if isinstance(objective, Expectation | Ensemble):
        return objective.with_each(with_margin)
    return replace(objective, loss="margin") if isinstance(objective, Classification) else objective


def _pick(logits: Tensor, classes: Tensor) -> Tensor:
    """The logit (b,) of one class a row."""
    return logits.gather(1, classes[:, None]).squeeze(1)


def _require_classes(logits: Tensor, least: int, name: str) -> None:
    if logits.shape[1] < least:
        raise ValueError(f"{name} needs at least {least} classes, got {logits.shape[1]}; use cross-entropy")
