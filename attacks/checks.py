"""Sanity verdicts: signs that an attack did not bite, so that a robust score would mean nothing.

The faults looked for are those of Carlini et al. 2019 (arXiv 1902.06705), section 5, and of the warnings that
AutoAttack logs; here they are values, to be stored with the result.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.objective import NotDifferentiableError, Objective, evaluate_with_gradient


@dataclass(frozen=True)
class Verdict:
    """One check: its name, whether all is well, and the numbers behind it in words."""

    name: str
    ok: bool
    detail: str


def gradient_verdict(objective: Objective, images: Tensor) -> Verdict:
    """Whether the loss has a usable gradient at every image (B, 3, H, W), one for each of the B samples.

    Not ok if any sample's gradient is zero in every pixel (saturated loss, quantised input, an embedding loss
    at its own minimum), if any loss or gradient is not finite, or if there is no gradient at all.
    """
    name, size = "gradient", len(images)
    rows = torch.arange(size, device=images.device)
    try:
        progress, gradient = evaluate_with_gradient(objective, images, rows, skip_fooled=False)
    except NotDifferentiableError as error:
        return Verdict(name, False, str(error))
    finite = progress.loss.isfinite() & gradient.isfinite().flatten(1).all(dim=1)
    zero = finite & (gradient == 0).flatten(1).all(dim=1)
    broken, flat = int((~finite).sum()), int(zero.sum())
    detail = f"of {size} samples, {flat} have an all-zero gradient, {broken} a non-finite loss or gradient"
    return Verdict(name, broken == 0 and flat == 0, detail)
