"""Tiny models and objectives whose behaviour is known, small enough to attack in milliseconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor, nn

from attacks.objective import Objective, Progress

SIDE = 8
CLASSES = 10


def toy_images(count: int, seed: int = 0) -> Tensor:
    """(count, 3, 8, 8) images in [0.2, 0.8], so that small balls stay off the pixel box."""
    return 0.2 + 0.6 * torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def generators(count: int, seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(1000 * seed + index) for index in range(count)]


@dataclass(frozen=True)
class LinearObjective:
    """loss = <w, image>, never fooled: the best image of a ball is known in closed form."""

    weight: Tensor  # (3, 8, 8)

    def __call__(self, images: Tensor, rows: Tensor) -> Progress:
        return Progress((images * self.weight).sum(dim=(1, 2, 3)), torch.zeros_like(rows, dtype=torch.bool))


@dataclass
class Recorder:
    """Passes calls on and remembers which rows were asked for, with and without gradient."""

    objective: Objective
    gradient_calls: list[list[int]] = field(default_factory=list)
    plain_calls: list[list[int]] = field(default_factory=list)

    def __call__(self, images: Tensor, rows: Tensor) -> Progress:
        (self.gradient_calls if images.requires_grad else self.plain_calls).append(rows.tolist())
        return self.objective(images, rows)


@dataclass
class Scripted:
    """On call t, loss values[t] (B,) with gradient weights[t] (3, 8, 8) at every image; never fooled."""

    values: Tensor  # (calls, B)
    weights: Tensor  # (calls, 3, 8, 8)
    seen: list[Tensor] = field(default_factory=list)

    def __call__(self, images: Tensor, rows: Tensor) -> Progress:
        call = len(self.seen)
        self.seen.append(images.detach().clone())
        slope = (images * self.weights[call]).sum(dim=(1, 2, 3))
        return Progress(slope - slope.detach() + self.values[call, rows], torch.zeros_like(rows).bool())


class ConvClassifier(nn.Module):
    """A seeded convolutional classifier on 3x8x8 images; smooth, so that gradients are informative.

    It computes in float64, so that float32 logits and gradients are the same in batches of any size: what
    remains of a difference between two attacks is theirs.
    """

    def __init__(self, classes: int = CLASSES, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.convolution = nn.Conv2d(3, 12, 3, stride=2, padding=1)
            self.head = nn.Linear(12 * 16, classes)
        self.double()

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.tanh(self.convolution(images.double() - 0.5)).flatten(1)).float()


class Perceptron(nn.Module):
    """Another seeded classifier: kinked where the first is smooth, in float64 for the same reason."""

    def __init__(self, classes: int = CLASSES, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.layers = nn.Sequential(nn.Linear(3 * SIDE * SIDE, 64), nn.ReLU(), nn.Linear(64, classes))
        self.double()

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images.double().flatten(1) - 0.5).float()


@dataclass(frozen=True)
class ClassificationToy:
    """A trained classifier with images that it gets right."""

    model: nn.Module
    images: Tensor
    labels: Tensor


@lru_cache
def trained_toy(
    classes: int = CLASSES, count: int = 48, kind: type[nn.Module] = ConvClassifier, seed: int = 0
) -> ClassificationToy:
    """Trained on noisy prototypes. Attacks at linf 16/255 or l2 0.7 break some images and not others."""
    noise = torch.Generator().manual_seed(7 + seed)
    prototypes = 0.5 + 0.15 * torch.randn(classes, 3, SIDE, SIDE, generator=noise)
    model = kind(classes, seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        images, labels = _noisy(prototypes, 128, noise)
        loss = nn.functional.cross_entropy(model(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.requires_grad_(False).eval().zero_grad()
    images, labels = _noisy(prototypes, 4 * count, noise)
    right = model(images).argmax(dim=1) == labels
    return ClassificationToy(model, images[right][:count], labels[right][:count])


def _noisy(prototypes: Tensor, count: int, noise: torch.Generator) -> tuple[Tensor, Tensor]:
    labels = torch.randint(len(prototypes), (count,), generator=noise)
    images = prototypes[labels] + 0.25 * torch.randn(count, *prototypes.shape[1:], generator=noise)
    return images.clamp(0, 1), labels
