"""Common weakness: images at which all models of an ensemble are weak in the same, flat way."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from attacks.kinds import AttackKind, Option, StepContext
from attacks.matching import parts_of
from attacks.objective import Ensemble, Objective, evaluate, gradient_of_all
from attacks.outcome import Outcome
from attacks.threat import ThreatModel, checked_start

# Chen et al. 2024 (arXiv 2303.09105), section 4, and the code of Dong et al. 2023 (arXiv 2309.11751)
DECAY = 1.0  # of both momenta
REVERSE = 1 / 15  # of eps: the step against the gradient that looks for a flat place
INNER = 250.0  # length of an inner step, l2, pixel units: with 224 pixels it reaches the rim of any ball
SPREAD = 0.5  # Long et al. 2022 (arXiv 2207.05382): frequencies are multiplied with 1 +- 0.5


def run_weakness(objective: Objective, images: Tensor, threat: ThreatModel, context: StepContext) -> Outcome:
    """Kind "common-weakness": Chen et al. 2024 (arXiv 2303.09105), Algorithm 1 with momentum (MI-CWA).

    Each step first goes against the gradient of the ensemble, then along that of one model after the other; the whole
    move, with momentum, gives the sign of the step. With the option ``spectrum`` a gradient is the mean over that many
    random changes of the image's spectrum (SSA-CWA). The last iterate is the result; its loss is that of the image
    itself.
    """
    start = checked_start(images, context.init, threat)
    looks = int(context.step.options.get("spectrum", 0))
    climb = _Climb(objective, threat, context.seeds, looks)
    length, current = context.step.first_step * threat.eps, start
    momentum = torch.zeros_like(start)
    for _ in range(context.step.steps):
        moved = climb.move(current, images)
        momentum = DECAY * momentum + _unit(moved - current, 1)
        current = threat.project(current + length * threat.steepest(momentum), images)
    found = evaluate(objective, current, torch.arange(len(images), device=images.device))
    failed = ~(climb.finite & found.loss.isfinite())
    spent = torch.full_like(failed, climb.evaluations, dtype=torch.int64)
    return Outcome(current, found.loss.masked_fill(failed, torch.nan), found.fooled & ~failed, failed, spent)


class _Climb:
    """The inner steps.

    Attributes:
        finite: (B,) bool, whether every loss and gradient was.
        evaluations: gradients taken of each sample.
    """

    def __init__(self, objective: Objective, threat: ThreatModel, seeds: Sequence[int], looks: int) -> None:
        self.threat, self.looks = threat, looks
        self.parts, weights = parts_of(objective)
        self.whole = Ensemble(tuple(self.parts), tuple(weights))
        self.streams = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.finite = torch.ones(len(seeds), dtype=torch.bool)
        self.evaluations = 0

    def move(self, current: Tensor, images: Tensor) -> Tensor:
        """Against the ensemble's gradient, then along each model's (B, 3, H, W)."""
        away = REVERSE * self.threat.eps * self.threat.steepest(self._gradient(self.whole, current))
        inner = self.threat.project(current - away, images)
        momentum = torch.zeros_like(inner)
        for part in self.parts:
            momentum = DECAY * momentum + _unit(self._gradient(part, inner), 2)
            inner = self.threat.project(inner + INNER * momentum, images)
        return inner

    def _gradient(self, objective: Objective, images: Tensor) -> Tensor:
        """Of the objective (B, 3, H, W), or its mean over changed spectra."""
        rows = torch.arange(len(images), device=images.device)
        total = torch.zeros_like(images)
        for _ in range(self.looks or 1):
            shown = images if self.looks == 0 else self._changed(images)
            progress, gradient = gradient_of_all(objective, shown, rows)
            self.evaluations += 1
            sound = progress.loss.isfinite() & gradient.isfinite().flatten(1).all(1)
            self.finite = self.finite.to(sound.device) & sound
            total += torch.where(sound[:, None, None, None], gradient, torch.zeros_like(gradient))
        return total

    def _changed(self, images: Tensor) -> Tensor:
        """Images with noise of eps whose frequencies are multiplied at random."""
        shape = images.shape[1:]
        noise = torch.stack([torch.randn(shape, generator=stream) for stream in self.streams]).to(images.device)
        factors = torch.stack([torch.rand(shape, generator=stream) for stream in self.streams]).to(images.device)
        return in_pixels(in_frequencies(images + self.threat.eps * noise) * (1 + SPREAD * (2 * factors - 1)))


def cosines(size: int) -> Tensor:
    """The orthonormal DCT-II as a matrix (size, size): frequencies by places.

    >>> torch.allclose(cosines(5) @ cosines(5).T, torch.eye(5), atol=1e-6)
    True
    """
    places, frequencies = torch.arange(size) + 0.5, torch.arange(size)
    matrix = (math.pi / size * frequencies[:, None] * places).cos() * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix


def in_frequencies(images: Tensor) -> Tensor:
    """The two-dimensional DCT (b, 3, H, W) of images."""
    height, width = (cosines(size).to(images) for size in images.shape[-2:])
    return height @ images @ width.T


def in_pixels(spectra: Tensor) -> Tensor:
    """The images that have these spectra (b, 3, H, W)."""
    height, width = (cosines(size).to(spectra) for size in spectra.shape[-2:])
    return height.T @ spectra @ width


def _unit(moves: Tensor, norm: int) -> Tensor:
    """Each (b, 3, H, W) over its length; zero stays zero."""
    length = torch.linalg.vector_norm(moves, ord=norm, dim=(1, 2, 3), keepdim=True)
    unit: Tensor = moves / length.clamp_min(torch.finfo(moves.dtype).tiny)
    return unit


COMMON_WEAKNESS = AttackKind(
    run_weakness,
    "steps through one model of an ensemble after the other: CWA, and SSA-CWA (arXiv 2303.09105, 2309.11751)",
    options={
        "spectrum": Option("a whole number from 0", lambda value: type(value) is int and value >= 0),
    },
)
