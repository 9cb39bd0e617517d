"""Loss curves of attacks: the highest loss after 1, 2, 4, 8, ... images tried; enough to draw, and little to keep."""

import math
from itertools import takewhile

import torch
from torch import Tensor

from attacks.objective import Objective, Progress

DIGITS = 5  # significant ones

LossCurve = tuple[float, ...]


class Watch:
    """An objective of B samples that remembers the highest loss of each. Never waits for the device on the way."""

    def __init__(self, objective: Objective, size: int, device: torch.device) -> None:
        self.objective = objective
        self.best = torch.full((size,), -torch.inf, device=device)
        self.marks: list[Tensor] = []  # k: (B,) highest loss after 2^k images; NaN for samples that had left
        self.calls = 0

    def __call__(self, images: Tensor, rows: Tensor) -> Progress:
        """As the objective itself."""
        progress = self.objective(images, rows)
        self.best[rows] = torch.fmax(self.best[rows], progress.loss.detach().float())
        self.calls += 1
        if self.calls.bit_count() == 1:
            mark = torch.full_like(self.best, torch.nan)
            mark[rows] = self.best[rows]
            self.marks.append(mark)
        return progress

    def curves(self) -> list[LossCurve | None]:
        """Of each sample, the highest loss after 1, 2, 4, ... images; None where it was not finite."""
        if not self.marks:
            return [None] * len(self.best)
        return [_rounded(row) for row in torch.stack(self.marks, dim=1).tolist()]


def _rounded(losses: list[float]) -> LossCurve | None:
    kept = tuple(float(f"{loss:.{DIGITS}g}") for loss in takewhile(lambda loss: not math.isnan(loss), losses))
    return kept if kept and all(map(math.isfinite, kept)) else None
