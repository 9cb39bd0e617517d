"""Sanity checks: signs that an attack did not bite, so that a robust score would mean nothing.

The faults looked for are those of Carlini et al. 2019 (arXiv 1902.06705), section 5, of the warnings that AutoAttack
logs, and of Pintor et al. 2022 (arXiv 2106.09947); here they are values, to be stored with the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.objective import NotDifferentiableError, Objective, evaluate, evaluate_with_gradient, with_margin
from attacks.outcome import Outcome
from attacks.threat import ThreatModel

VANISHING = 1e-20  # largest entry of a gradient below which float32 products of it underflow
RANDOMISED = 1e-4  # relative change of a loss from one look to the next; AutoAttack's threshold for logits
BETTER_THAN_NOISE = 0.75  # share of the samples on which an attack must beat one random image of the ball
DIRECTIONS = 8  # along which the loss is looked at
REACHES = (0.5 / 255, 0.25 / 255, 1 / 255)  # of looks to either side, in each pixel
LEAST_COSINE, MOST_RATIO = 0.8, 2.0  # of a gradient that serves; of honest ones on smooth models: above 0.99, below 1.1
COUPLED = 1e-2  # relative change of a loss with other images in the batch
SLOPES, ROWS = "finite_differences", "rows_independent"
OUTPUTS_SUM = 1e-4  # how near to one the outputs of a softmax sum


@dataclass(frozen=True)
class SanityCheck:
    """One check on an attack or a run: its name, whether it passed, and the numbers behind it in words."""

    name: str
    ok: bool
    detail: str


def gradient_check(objective: Objective, images: Tensor) -> SanityCheck:
    """Whether the loss has a usable gradient at every image (B, 3, H, W), one for each of the B samples.

    Not ok if any sample's gradient is zero in every pixel (saturated loss, quantised input, an embedding loss at its
    own minimum) or has vanished, if any loss or gradient is not finite, or if there is no gradient at all.
    """
    name, size = "gradient", len(images)
    rows = torch.arange(size, device=images.device)
    try:
        progress, gradient = evaluate_with_gradient(objective, images, rows, skip_fooled=False)
    except NotDifferentiableError as error:
        return SanityCheck(name, False, str(error))
    largest = gradient.flatten(1).abs().amax(dim=1)
    finite = progress.loss.isfinite() & largest.isfinite()
    zero = finite & (largest == 0)
    vanishing = finite & ~zero & (largest < VANISHING)
    broken, flat, faint = (int(mask.sum()) for mask in (~finite, zero, vanishing))
    detail = f"of {size} samples, {flat} have an all-zero gradient, {broken} a non-finite loss or gradient"
    if faint:
        detail += f", {faint} a gradient below {VANISHING:g}"
    return SanityCheck(name, broken == flat == faint == 0, detail)


def slope_check(objective: Objective, images: Tensor, seeds: Sequence[int], name: str = SLOPES) -> SanityCheck:
    """Whether the gradient says how the loss changes: central differences along random signs, for B images.

    A gradient that is cut off, drowned in rounding or shrunk passes a look at whether it is zero; its cosine to what
    the loss does, or the ratio of the two, does not. A classifier is looked at by its margin, which does not saturate.
    The two must agree at one of a few reaches: a bend of the loss shows at the longer, its rounding at the shorter.
    """
    objective = with_margin(objective)
    rows = torch.arange(len(images), device=images.device)
    try:
        _, gradient = evaluate_with_gradient(objective, images, rows, skip_fooled=False)
    except NotDifferentiableError as error:
        return SanityCheck(name, False, str(error))
    best: _Slopes | None = None
    for reach in REACHES:
        found = _slopes(objective, images, gradient, seeds, reach)
        if not found.finite:
            return SanityCheck(name, False, "a loss or a gradient is not finite")
        if found.agree:
            return SanityCheck(name, True, found.in_words())
        if not found.flat and (best is None or found.cosine > best.cosine):
            best = found
    if best is None:
        return SanityCheck(name, True, "too flat for differences to tell from rounding")
    return SanityCheck(name, False, best.in_words())


@dataclass(frozen=True)
class _Slopes:
    """Slopes as the gradient has them, against those of the loss.

    Attributes:
        finite: whether all are.
        flat: whether all are below the rounding of the loss, so that there is nothing to say.
        cosine: between the two, over all directions and images.
        ratio: of their lengths.
        reach: at which they were looked at.
    """

    finite: bool
    flat: bool
    cosine: float
    ratio: float
    reach: float

    @property
    def agree(self) -> bool:
        return not self.flat and self.cosine >= LEAST_COSINE and 1 / MOST_RATIO <= self.ratio <= MOST_RATIO

    def in_words(self) -> str:
        words = f"cosine {self.cosine:.3f} between gradient and central differences; slopes {self.ratio:.2g} times"
        return f"{words} theirs (at {255 * self.reach:g}/255)"


def _slopes(objective: Objective, images: Tensor, gradient: Tensor, seeds: Sequence[int], reach: float) -> _Slopes:
    """Look along random signs, the same at every reach."""
    rows, shape = torch.arange(len(images), device=images.device), images.shape[1:]
    streams = [torch.Generator().manual_seed(seed) for seed in seeds]
    foretold, found, largest = [], [], 0.0
    for _ in range(DIRECTIONS):
        signs = torch.stack([2.0 * torch.randint(0, 2, shape, generator=s) - 1 for s in streams]).to(images.device)
        above, below = (evaluate(objective, images + side * reach * signs, rows).loss for side in (1, -1))
        foretold.append((gradient * signs).sum((1, 2, 3)))
        found.append((above - below) / (2 * reach))
        largest = max(largest, float(above.abs().max()))
    expected, seen = torch.stack(foretold), torch.stack(found)
    finite = bool(expected.isfinite().all() and seen.isfinite().all())
    lengths = float(expected.norm()), float(seen.norm())
    flat = max(lengths) <= largest * 2.0**-21 / reach * seen.numel() ** 0.5
    cosine = float((expected * seen).sum()) / max(lengths[0] * lengths[1], 1e-300)
    return _Slopes(finite, flat, cosine, lengths[0] / lengths[1] if lengths[1] else torch.inf, reach)


def rows_check(objective: Objective, images: Tensor) -> SanityCheck:
    """Whether the losses of images (B, 3, H, W) are the same when half of them are asked without the others."""
    rows = torch.arange(len(images), device=images.device)
    whole = evaluate(objective, images, rows).loss
    halves = [evaluate(objective, images[part], rows[part]).loss for part in (slice(0, None, 2), slice(1, None, 2))]
    apart = torch.empty_like(whole)
    apart[0::2], apart[1::2] = halves
    change = (apart - whole).abs() / whole.abs().clamp_min(1.0)
    moved = int((change > COUPLED).sum())
    return SanityCheck(ROWS, moved == 0, f"of {len(images)} samples, {moved} have another loss in other company")


def repeatable_check(objective: Objective, images: Tensor) -> SanityCheck:
    """Whether two looks at the same images (B, 3, H, W) give the same losses: a randomised model needs averaging."""
    rows = torch.arange(len(images), device=images.device)
    first, second = (evaluate(objective, images, rows).loss for _ in range(2))
    change = (first - second).abs() / first.abs().clamp_min(1.0)
    moved = int((change > RANDOMISED).sum())
    detail = f"of {len(images)} samples, {moved} have another loss at a second look"
    return SanityCheck("repeatable", moved == 0, detail)


def logits_check(objective: Objective, images: Tensor) -> SanityCheck | None:
    """Whether a classifier gives logits (b, K), not probabilities, which flatten losses made for logits.

    None if the objective is not that of a classifier.

    >>> from attacks.objective import Classification
    >>> softmax = Classification(lambda images: images.mean((2, 3)).softmax(1), torch.tensor([0]))
    >>> logits_check(softmax, torch.rand(1, 3, 2, 2)).ok
    False
    """
    model = getattr(objective, "model", None)
    if model is None:
        return None
    with torch.no_grad():
        outputs = model(images)
    likely = bool(((outputs >= 0) & (outputs <= 1)).all() and ((outputs.sum(1) - 1).abs() < OUTPUTS_SUM).all())
    words = "lie in [0, 1] and sum to one: a softmax?" if likely else "are not probabilities"
    return SanityCheck("logits", not likely, f"the outputs of {len(images)} samples {words}")


def noise_check(
    objective: Objective, clean: Tensor, outcome: Outcome, threat: ThreatModel, seeds: Sequence[int]
) -> SanityCheck:
    """Whether the attack beats one random image of the ball, drawn from one seed per sample.

    It does so where it fools and the noise does not, or reaches a higher loss. Samples that noise fools are left out.
    """
    streams = [torch.Generator().manual_seed(seed) for seed in seeds]
    noise = threat.random_start(clean, streams)
    found = evaluate(objective, noise, torch.arange(len(clean), device=clean.device))
    counted = ~found.fooled & ~outcome.failed
    beaten = counted & (outcome.fooled | (outcome.loss > found.loss))
    total, better = int(counted.sum()), int(beaten.sum())
    detail = f"the attack does better than one random image on {better} of {total} samples that noise does not fool"
    return SanityCheck("beats_noise", total == 0 or better >= BETTER_THAN_NOISE * total, detail)
