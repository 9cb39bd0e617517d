"""Attacks towards a target image through random crops: M-Attack, and FOA-Attack on top of it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.kinds import AttackKind, StepContext
from attacks.matching import Matching, models_of
from attacks.objective import Objective, Progress, evaluate
from attacks.outcome import Outcome
from attacks.pgd import LastIterate, accumulated, ascend
from attacks.threat import ThreatModel, checked_start
from attacks.transport import centres, transport_cost

SCALE = (0.5, 0.9)  # share of the area that a crop keeps; M-Attack (arXiv 2503.10635), released configuration
RATIO = (3 / 4, 4 / 3)  # width over height, as in torchvision's RandomResizedCrop, which the released code calls
TRIES = 10  # likewise, before the whole image is taken
CENTRES, LOCAL_WEIGHT = 10, 0.2  # FOA-Attack (arXiv 2505.21494), released code


def run_crops(objective: Objective, images: Tensor, threat: ThreatModel, context: StepContext) -> Outcome:
    """Kind "crops": M-Attack (Li et al. 2025, arXiv 2503.10635), sign steps on the cosine of cropped images' features.

    At each step the image and its target are cropped, each by a window of its own, and enlarged to their former size.
    The last iterate is the result, as published; its loss is the one of the whole images.

    Raises:
        ValueError: the goal has no target image.
    """
    return _ascended(objective, Cropped(objective, context.seeds), images, threat, context)


def run_foa(objective: Objective, images: Tensor, threat: ThreatModel, context: StepContext) -> Outcome:
    """Kind "foa": FOA-Attack (Jia et al. 2025, arXiv 2505.21494), M-Attack that matches local features, too.

    To the distance of pooled features comes 0.2 of the optimal transport between the k-means centres of the patch
    tokens, and a model of the ensemble weighs more the less its distance shrank in the last step.

    Raises:
        ValueError: the goal has no target image.
    """
    return _ascended(objective, Aligned(objective, context.seeds), images, threat, context)


def _ascended(
    objective: Objective, cropped: Objective, images: Tensor, threat: ThreatModel, context: StepContext
) -> Outcome:
    start = checked_start(images, context.init, threat)
    keeper, steps = LastIterate(start), context.step.steps
    lengths = [context.step.first_step * threat.eps] * steps
    ascend(cropped, images, threat, start=start, lengths=lengths, velocity=accumulated(0.0), keeper=keeper)
    found = evaluate(objective, keeper.images, torch.arange(len(images), device=images.device))
    failed = ~(keeper.finite & found.loss.isfinite())
    spent = torch.full_like(failed, steps, dtype=torch.int64)
    return Outcome(keeper.images, found.loss.masked_fill(failed, torch.nan), found.fooled & ~failed, failed, spent)


class Cropped:
    """The mean similarity of models' features between random crops of images and of their targets.

    Each look has windows of its own, drawn from one stream per sample. It is asked of all samples at every look.

    Args:
        objective: towards target images, of one model or an ensemble.
        seeds: (B,) one per sample.
    """

    def __init__(self, objective: Objective, seeds: Sequence[int]) -> None:
        self.models, self.weights = models_of(objective)
        self.streams = [_stream(seed) for seed in seeds]

    def __call__(self, images: Tensor, rows: Tensor) -> Progress:
        """Score images (b, 3, H, W)."""
        chosen = [self.streams[row] for row in rows.tolist()]
        shown = cropped(images, chosen)
        targets = cropped(self.models[0].targets[rows], chosen)
        nothing = torch.zeros_like(rows, dtype=torch.bool)
        return Progress(self.loss(shown, targets), nothing)

    def loss(self, shown: Tensor, targets: Tensor) -> Tensor:
        """(b,) of crops (b, 3, H, W)."""
        found = [
            weight * similarity(model, shown, targets) for weight, model in zip(self.weights, self.models, strict=True)
        ]
        return torch.stack(found).sum(0)


class Aligned(Cropped):
    """The same with local features, and models weighed by K softmax(distance / distance before), per sample."""

    def __init__(self, objective: Objective, seeds: Sequence[int]) -> None:
        super().__init__(objective, seeds)
        self.before: Tensor | None = None  # (K, B)

    def loss(self, shown: Tensor, targets: Tensor) -> Tensor:
        """(b,) of crops (b, 3, H, W)."""
        distances = torch.stack([distance(model, shown, targets) for model in self.models])
        now = distances.detach()
        shares = dynamic_weights(now, now if self.before is None else self.before)
        self.before = now
        return -(distances.new_tensor(self.weights)[:, None] * shares * distances).sum(0)


def similarity(model: Matching, shown: Tensor, targets: Tensor) -> Tensor:
    """Cosine (b,) of the pooled features of two batches of images (b, 3, H, W)."""
    with torch.no_grad():
        wanted = model.pooled(targets)
    return F.cosine_similarity(model.pooled(shown), wanted, dim=-1)


def distance(model: Matching, shown: Tensor, targets: Tensor) -> Tensor:
    """One minus the cosine of pooled features, and 0.2 of the transport between centres of patch tokens (b,)."""
    with torch.no_grad():
        wanted = centres(model.tokens(targets), CENTRES)
    local = transport_cost(centres(model.tokens(shown), CENTRES), wanted)
    return 1 - similarity(model, shown, targets) + LOCAL_WEIGHT * local


def dynamic_weights(now: Tensor, before: Tensor) -> Tensor:
    """Weights (K, b) that sum to K, of K models' distances (K, b): larger where less was gained.

    >>> dynamic_weights(torch.tensor([[0.5], [1.0]]), torch.ones(2, 1)).flatten()
    tensor([0.7551, 1.2449])
    """
    return len(now) * (now / before.clamp_min(torch.finfo(now.dtype).eps)).softmax(0)


def cropped(images: Tensor, streams: Sequence[torch.Generator]) -> Tensor:
    """Images (b, 3, H, W), each cropped by a window drawn from its stream and enlarged to its former size."""
    height, width = images.shape[-2:]
    parts = []
    for image, stream in zip(images, streams, strict=True):
        top, left, tall, wide = window(height, width, stream)
        part = image[None, :, top : top + tall, left : left + wide]
        parts.append(F.interpolate(part, (height, width), mode="bilinear", align_corners=False, antialias=True))
    return torch.cat(parts)


def window(height: int, width: int, stream: torch.Generator) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random window."""
    low, high = (math.log(ratio) for ratio in RATIO)
    for _ in range(TRIES):
        area = height * width * _uniform(*SCALE, stream)
        ratio = math.exp(_uniform(low, high, stream))
        wide, tall = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < tall <= height:
            return _below(height - tall + 1, stream), _below(width - wide + 1, stream), tall, wide
    return 0, 0, height, width


def _uniform(low: float, high: float, stream: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=stream))


def _below(limit: int, stream: torch.Generator) -> int:
    return int(torch.randint(0, limit, (), generator=stream))


def _stream(seed: int) -> torch.Generator:
    key = hashlib.sha256(repr(("crops", seed)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(key[:8], "big") >> 1)


CROPS = AttackKind(run_crops, "sign steps towards a target image through random crops: M-Attack (arXiv 2503.10635)")
FOA = AttackKind(run_foa, "M-Attack that matches patch tokens by optimal transport, too: FOA-Attack (arXiv 2505.21494)")
