"""One image under several goals: how the samples of a volley are laid out as rows of one batch, and back."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeVar

import torch
from torch import Tensor

from attacks.presets import AttackStep
from tasks.base import Sample

T = TypeVar("T")


@dataclass(frozen=True)
class Volley:
    """B samples under each of G steps: G B rows, all samples under the first step first.

    Attributes:
        steps: with the goal of each already settled; they differ in name and goal only.
        samples: B of them.
    """

    steps: tuple[AttackStep, ...]
    samples: Sequence[Sample]

    @property
    def name(self) -> str:
        """What it is called: the steps' word for it, or the name of its only step."""
        return self.steps[0].volley or self.steps[0].name

    @property
    def rows(self) -> list[tuple[AttackStep, Sample]]:
        """Step and sample of each row."""
        return list(product(self.steps, self.samples))

    @property
    def sample_rows(self) -> list[Sample]:
        """The sample of each row."""
        return [sample for _, sample in self.rows]

    def repeat(self, images: Tensor) -> Tensor:
        """The image (G B, 3, H, W) of each row, given one per sample (B, 3, H, W)."""
        return images if len(self.steps) == 1 else images.repeat(len(self.steps), 1, 1, 1)

    def siblings(self, device: torch.device) -> Tensor | None:
        """(G B,) int64: rows of equal number are one image; None where each image has one row."""
        if len(self.steps) == 1:
            return None
        return torch.arange(len(self.samples), device=device).repeat(len(self.steps))

    def by_sample(self, rows: Sequence[T]) -> list[list[T]]:
        """What belongs to the rows, sorted by sample: for each of the B samples, one per step."""
        return [list(rows[first :: len(self.samples)]) for first in range(len(self.samples))]
