"""The Square attack's random search on any objective, all images of a batch at once.

pyautoattack's own (kind "square") asks a classifier for logits, one image at a time. This one needs a loss and nothing
else, so that it can be carried out on vision-language models and on randomised ones, and each image draws from a
stream of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from attacks.kinds import AttackKind, StepContext
from attacks.objective import Objective, evaluate, with_margin
from attacks.outcome import Ledger, Outcome
from attacks.threat import ThreatModel

FIRST_SHARE = 0.8  # of the pixels in the first squares; Andriushchenko et al. 2020 (arXiv 1912.00049), section 4
# The share halves after these queries of 10000, scaled to the number there are (their appendix).
HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


def run_squares(objective: Objective, images: Tensor, threat: ThreatModel, context: StepContext) -> Outcome:
    """Kind "squares": Andriushchenko et al. 2020 (arXiv 1912.00049), for l-inf; in l2 proposals are projected.

    It begins with vertical stripes at the rim of the ball. Each proposal repaints one square of the best image so far,
    colour by colour, with pixels at the rim, and is kept where it raises the loss.
    """
    streams = [torch.Generator().manual_seed(seed) for seed in context.seeds]
    ledger = Ledger(images, stop_when_fooled=context.stop_when_fooled)
    rows = torch.arange(len(images), device=images.device)
    for query in range(context.step.steps + 1):
        if len(rows) == 0:
            break
        chosen, best = [streams[row] for row in rows.tolist()], ledger.images[rows]
        if query == 0:
            shown = best
        elif query == 1:
            shown = _moved(images[rows], images[rows], _stripes(best, chosen), threat)
        else:
            shown = _moved(images[rows], best, _squares(best, chosen, _share(query, context.step.steps)), threat)
        _, active = ledger.record(rows, shown, evaluate(objective, shown, rows))
        rows = rows[active]
    return ledger.outcome()


def _moved(clean: Tensor, best: Tensor, signs: Tensor, threat: ThreatModel) -> Tensor:
    """Best images with pixels at the rim of the ball where signs are not zero."""
    return threat.project(torch.where(signs == 0, best, clean + threat.eps * signs), clean)


def _stripes(like: Tensor, streams: Sequence[torch.Generator]) -> Tensor:
    """Signs (b, 3, H, W) that are the same down each column."""
    width = like.shape[-1]
    signs = torch.stack([torch.randint(0, 2, (3, 1, width), generator=stream) for stream in streams])
    return (2 * signs - 1).to(like).expand_as(like)


def _squares(like: Tensor, streams: Sequence[torch.Generator], share: float) -> Tensor:
    """Signs (b, 3, H, W) in one square of an image, zero elsewhere."""
    height, width = like.shape[-2:]
    side = min(max(round((share * height * width) ** 0.5), 1), height, width)
    signs = torch.zeros(like.shape)
    for one, stream in zip(signs, streams, strict=True):
        top = int(torch.randint(0, height - side + 1, (), generator=stream))
        left = int(torch.randint(0, width - side + 1, (), generator=stream))
        colours = 2 * torch.randint(0, 2, (3, 1, 1), generator=stream) - 1
        one[:, top : top + side, left : left + side] = colours
    return signs.to(like)


def _share(query: int, queries: int) -> float:
    """Share of the pixels in a square at a query.

    >>> _share(2, 500), _share(500, 500)
    (0.4, 0.0015625)
    """
    halvings = sum(query / queries * 10_000 > after for after in HALVED_AFTER)
    return FIRST_SHARE * 0.5**halvings


SQUARES = AttackKind(
    run_squares,
    "the Square attack on any objective, in batches (arXiv 1912.00049)",
    white_box=False,
    loss_curve=True,
    adapt=lambda objective, options: with_margin(objective),
)
