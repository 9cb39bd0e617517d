"""What attacks towards a target image ask of an objective beside its loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast, runtime_checkable

from torch import Tensor

from attacks.objective import Ensemble, Objective, Progress


@runtime_checkable
class Matching(Protocol):
    """An objective of one model towards target images.

    Attributes:
        targets: (B, 3, h, w) in [0, 1].
    """

    targets: Tensor

    def __call__(self, images: Tensor, rows: Tensor) -> Progress:
        """As of `attacks.objective.Objective`."""

    def pooled(self, images: Tensor) -> Tensor:
        """(b, 3, H, W) -> (b, D)."""

    def tokens(self, images: Tensor) -> Tensor:
        """(b, 3, H, W) -> (b, N, W)."""


def parts_of(objective: Objective) -> tuple[Sequence[Objective], Sequence[float]]:
    """The objectives of an ensemble's models with their weights; any other by itself."""
    if isinstance(objective, Ensemble):
        return objective.parts, objective.weights
    return (objective,), (1.0,)


def models_of(objective: Objective) -> tuple[Sequence[Matching], Sequence[float]]:
    """The same, of objectives towards target images.

    Raises:
        ValueError: one is not.
    """
    parts, weights = parts_of(objective)
    if not all(isinstance(part, Matching) for part in parts):
        raise ValueError("this kind leads to a target image: give the step the goal 'target-image'")
    return cast("Sequence[Matching]", parts), weights
