"""The same attack again from other random starts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from attacks.objective import Objective, Progress
from attacks.outcome import Outcome
from attacks.threat import ThreatModel

Attack: TypeAlias = Callable[[Objective, Tensor, Tensor, Tensor], Outcome]
"""objective of b samples, their images (b, 3, H, W), starts, and rows (b,) out of B -> outcome of the b samples."""


def restarted(
    attack: Attack,
    objective: Objective,
    images: Tensor,
    threat: ThreatModel,
    init: Tensor,
    seeds: Sequence[int],
    *,
    times: int,
    stop_when_fooled: bool,
) -> Outcome:
    """Attack `times` times: from `init`, then from random images of the ball, and keep the best result per sample.

    The best is the first image that fools, else the one of highest loss. A failed sample stays failed.

    Args:
        attack: to carry out.
        objective: of the B samples.
        images: (B, 3, H, W) clean.
        threat: the ball.
        init: (B, 3, H, W) first start.
        seeds: (B,) of the later starts.
        times: how often, >= 1.
        stop_when_fooled: whether fooled samples are attacked no more; if not, only the loss counts.
    """
    rows = torch.arange(len(images), device=images.device)
    best = attack(objective, images, init, rows)
    for number in range(1, times):
        left = rows[~best.failed & ~best.fooled] if stop_when_fooled else rows[~best.failed]
        if len(left) == 0:
            break
        start = threat.random_start(images[left], [_stream(seeds[row], number) for row in left.tolist()])
        found = attack(_part(objective, left), images[left], start, left)
        better = found.failed | (found.loss > best.loss[left])
        best = _merged(best, left, found, better | found.fooled if stop_when_fooled else better)
    return best


def _part(objective: Objective, left: Tensor) -> Objective:
    """The objective of some of its samples."""

    def part(images: Tensor, rows: Tensor) -> Progress:
        return objective(images, left[rows])

    return part


def _merged(best: Outcome, left: Tensor, found: Outcome, chosen: Tensor) -> Outcome:
    """What was found of the samples `left` where it is chosen (b,) bool, at the cost of both."""
    merged = Outcome(*(part.clone() for part in best))
    for ours, theirs in zip(merged, found, strict=True):
        ours[left[chosen]] = theirs[chosen]
    merged.evaluations[left] = best.evaluations[left] + found.evaluations
    return merged


def _stream(seed: int, number: int) -> torch.Generator:
    key = hashlib.sha256(repr((seed, number)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(key[:8], "big") >> 1)
