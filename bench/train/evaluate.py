"""Held-out images, clean and under APGD: how far a tower has moved from the original, and what an attacker can do."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks.apgd import apgd
from attacks.objective import Progress, cross_entropy, squared_l2
from attacks.threat import ThreatModel
from bench.train.loop import step_generator


@dataclass(frozen=True)
class HeldOut:
    """Images that are never trained on, and how they are attacked.

    Without classes the attack is FARE's: away from the original's clean embedding. With them it is cross-entropy.

    Args:
        images: (n, 3, H, W) float32 in [0, 1].
        eps: radius, in pixel units.
        steps: of APGD, from a random start.
        batch: images at once.
        labels: (n,) int64.
        classes: (D, K) text embeddings times the logit scale.
    """

    images: Tensor
    eps: float
    steps: int = 20
    batch: int = 32
    labels: Tensor | None = None
    classes: Tensor | None = None

    def evaluate(self, tower: nn.Module, original: nn.Module) -> dict[str, float]:
        """Mean cosine to the original's clean embedding, squared distance and, with classes, accuracy in percent."""
        device = next(tower.parameters()).device
        tower.eval()
        sums: dict[str, float] = {}
        for start in range(0, len(self.images), self.batch):
            rows = slice(start, start + self.batch)
            for key, value in self._batch(tower, original, rows, device).items():
                sums[key] = sums.get(key, 0.0) + value.sum().item()
        return {key: value / len(self.images) for key, value in sums.items()}

    def _batch(self, tower: nn.Module, original: nn.Module, rows: slice, device: torch.device) -> dict[str, Tensor]:
        images = self.images[rows].to(device)
        labels = None if self.labels is None else self.labels[rows].to(device)
        with torch.no_grad():
            anchor, clean = original(images).float(), tower(images).float()
        noise = torch.rand(images.shape, generator=step_generator(0, rows.start)).to(device)
        outcome = apgd(
            _Objective(tower, anchor, labels, self.classes),
            images,
            ThreatModel("linf", self.eps),
            steps=self.steps,
            init=images + self.eps * (2 * noise - 1),
            stop_when_fooled=False,
        )
        with torch.no_grad():
            attacked = tower(outcome.images).float()
        return self._figures("clean", clean, anchor, labels) | self._figures("attacked", attacked, anchor, labels)

    def _figures(self, kind: str, embedding: Tensor, anchor: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        found = {
            f"eval_cosine_{kind}": F.cosine_similarity(embedding, anchor),
            f"eval_distance_{kind}": squared_l2(embedding, anchor),
        }
        if labels is not None and self.classes is not None:
            guesses = (F.normalize(embedding, dim=-1) @ self.classes).argmax(-1)
            found[f"eval_accuracy_{kind}"] = 100.0 * (guesses == labels)
        return found


@dataclass(frozen=True)
class _Objective:
    tower: nn.Module
    anchor: Tensor
    labels: Tensor | None
    classes: Tensor | None

    def __call__(self, images: Tensor, rows: Tensor) -> Progress:
        embedding = self.tower(images).float()
        if self.labels is None or self.classes is None:
            values = squared_l2(embedding, self.anchor[rows])
        else:
            values = cross_entropy(F.normalize(embedding, dim=-1) @ self.classes, self.labels[rows])
        return Progress(values, torch.zeros_like(values, dtype=torch.bool))
