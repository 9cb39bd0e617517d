"""What an attack returns, and the bookkeeping behind it that all attacks share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from attacks.objective import Progress


class Outcome(NamedTuple):
    """The result of one attack on B samples; `loss` and `fooled` always speak of `images`.

    Attributes:
        images: (B, 3, H, W) float32: the first image that fooled, else the image of highest loss (the start
            counts). With `stop_when_fooled=False` always the image of highest loss.
        loss: (B,) float32 loss of those images; NaN where failed.
        fooled: (B,) bool: whether those images fool, as the objective says; false where failed.
        failed: (B,) bool: a loss or gradient was not finite, and the sample left the attack there. Such a
            sample is neither robust nor fooled.
        evaluations: (B,) int64 gradient evaluations spent on each sample.
    """

    images: Tensor
    loss: Tensor
    fooled: Tensor
    failed: Tensor
    evaluations: Tensor


class Ledger:
    """The best image so far of each of B samples, and who has left the attack.

    Args:
        start: (B, 3, H, W), inside the threat model.
        stop_when_fooled: whether a fooled sample is finished, with the image that fooled as its result.
    """

    def __init__(self, start: Tensor, *, stop_when_fooled: bool) -> None:
        size = len(start)
        self.stop_when_fooled = stop_when_fooled
        self.images = start.clone()
        self.loss = start.new_full((size,), -torch.inf)
        self.fooled = torch.zeros(size, dtype=torch.bool, device=start.device)
        self.failed = torch.zeros_like(self.fooled)
        self.evaluations = torch.zeros(size, dtype=torch.int64, device=start.device)

    def record(
        self, rows: Tensor, images: Tensor, progress: Progress, gradient: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Enter what was found at images (b, 3, H, W) of the samples rows (b,).

        Returns:
            improved (b,) bool: the loss is strictly above the best before it; active (b,) bool: neither
            failed nor finished, so the attack goes on.
        """
        finite = progress.loss.isfinite()
        finished = progress.fooled if self.stop_when_fooled else torch.zeros_like(progress.fooled)
        if gradient is not None:
            wanted = finite & ~finished
            self.evaluations[rows] += wanted
            finite &= _finite(gradient) | ~wanted
        improved = finite & (progress.loss > self.loss[rows])
        taken = (improved | (finite & finished)).nonzero().squeeze(1)
        if len(taken) > 0:  # indices, since a mask would be looked through once for each of these lines
            into = rows[taken]
            self.images.index_copy_(0, into, images.index_select(0, taken))
            self.loss[into] = progress.loss[taken]
            self.fooled[into] = progress.fooled[taken]
        if not finite.all():
            self._fail(rows[~finite])
        return improved, finite & ~finished

    def settle(self, rows: Tensor, fooled: Tensor) -> Tensor:
        """Enter which best images (b,) bool of the samples rows (b,) fool; those are finished."""
        self.fooled[rows[fooled]] = True
        return fooled

    def _fail(self, rows: Tensor) -> None:
        """Nothing is claimed of a failed sample."""
        self.failed[rows] = True
        self.fooled[rows] = False
        self.loss[rows] = torch.nan

    def outcome(self) -> Outcome:
        """The state as a result."""
        return Outcome(self.images, self.loss, self.fooled, self.failed, self.evaluations)


def _finite(gradient: Tensor) -> Tensor:
    """(b,) bool: no entry of an image's gradient is infinite or NaN.

    A finite sum says so at a third of the cost; only where large entries overflow it, or one is not finite, is each
    of them looked at.
    """
    finite = gradient.sum(dim=(1, 2, 3)).isfinite()
    return finite if finite.all() else gradient.isfinite().flatten(1).all(dim=1)
