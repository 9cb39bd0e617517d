"""Zero-shot classification with a CLIP encoder (Radford et al. 2021; attacked as in Schlarmann et al. 2024, 4.4)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from attacks.objective import Classification, Objective, TargetedClassification, runner_up
from tasks.base import Dataset, ImageTextEncoder, Sample
from tasks.protocol import STRICT, Protocol


class ZeroShot:
    """The nearest class name by cosine similarity; accuracy in percent."""

    name: ClassVar[str] = "zeroshot"
    version: ClassVar[int] = 1
    metric: ClassVar[str] = "accuracy (%)"
    worst: ClassVar[Literal["min"]] = "min"
    model: ClassVar[Literal["encoder"]] = "encoder"

    def __init__(self, dataset: Dataset, protocol: Protocol = STRICT) -> None:
        self.dataset = dataset

    def bind(self, model: ImageTextEncoder) -> "_Classifier":
        """Embed the class names once."""
        weights = model.text.classifier(self.dataset.classnames, self.dataset.templates)
        return _Classifier(model, weights, float(model.text.scale), self.dataset.classnames)

    def score(self, prediction: str, sample: Sample) -> float:
        """100 if the class is right, else 0."""
        return 100.0 * (prediction == sample.references[0])

    def lost(self, score: float, sample: Sample) -> bool:
        """A wrong class is as wrong as it gets."""
        return score == 0

    def applies(self, goal: str, sample: Sample) -> bool:
        """Rival classes exist up to the number of classes, and targeted DLR needs four."""
        classes = len(self.dataset.classnames)
        return goal == "untargeted" or (classes >= 4 and rival_rank(goal) < classes)


def rival_rank(goal: str) -> int:
    """Which rival class a goal "targeted-N" leads to: the N-th.

    Raises:
        ValueError: another goal.
    """
    if not goal.startswith("targeted-"):
        raise ValueError(f"goal {goal!r} makes no sense for a class; choose an attack made for it")
    return int(goal.removeprefix("targeted-"))


@dataclass(frozen=True)
class _Classifier:
    encoder: ImageTextEncoder
    weights: Tensor  # (D, K), unit columns
    scale: float
    classnames: Sequence[str]

    def logits(self, images: Tensor) -> Tensor:
        """(b, 3, H, W) -> (b, K)."""
        return self.scale * normalize(self.encoder(images), dim=-1) @ self.weights

    def predict(self, images: Tensor, samples: Sequence[Sample]) -> list[str]:
        """Class names."""
        with torch.no_grad():
            return [self.classnames[k] for k in self.logits(images).argmax(1).tolist()]

    def objective(self, images: Tensor, samples: Sequence[Sample], goal: str) -> Objective:
        """Goals "untargeted" (cross-entropy) and "targeted-N" (targeted DLR to the clean image's N-th rival)."""
        index = {name: k for k, name in enumerate(self.classnames)}
        labels = torch.tensor([index[s.references[0]] for s in samples], device=images.device)
        if goal == "untargeted":
            return Classification(self.logits, labels)
        rank = rival_rank(goal)
        with torch.no_grad():
            targets = runner_up(self.logits(images), labels, rank)
        return TargetedClassification(self.logits, labels, targets)
