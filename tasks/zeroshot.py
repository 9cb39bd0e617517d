"""Zero-shot classification with a CLIP encoder (Radford et al. 2021; attacked as in Schlarmann et al. 2024, 4.4)."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from attacks.checks import SanityCheck
from attacks.objective import Classification, Objective, TargetedClassification, runner_up
from tasks.base import Answer, ClassifyingEncoder, Dataset, ImageTextEncoder, Sample, Victim, answers_of
from tasks.protocol import STRICT, Protocol

COINCIDE = 1 - 1e-5  # cosine of embeddings above which rounding decides between two classes
SHOWN = 5  # pairs of classes in a message


class ZeroShot:
    """The nearest class name by cosine similarity; accuracy in percent."""

    name: ClassVar[str] = "zeroshot"
    version: ClassVar[int] = 1
    metric: ClassVar[str] = "accuracy (%)"
    ceiling: ClassVar[float | None] = 100.0
    worst: ClassVar[Literal["min"]] = "min"
    model: ClassVar[Literal["encoder"]] = "encoder"
    answers: ClassVar[str] = "class"
    part_scores_as_whole: ClassVar[bool] = True

    @classmethod
    def fits(cls, dataset: Dataset) -> str | None:
        """Classes are needed, of two names at least."""
        if not dataset.classnames:
            return "has no classes"
        if len(set(dataset.classnames)) == 1:
            return f"has one class, {dataset.classnames[0]!r}, so that every answer is right: take two at least"
        return None

    def __init__(self, dataset: Dataset, protocol: Protocol = STRICT) -> None:
        self.dataset = dataset
        self.classes = distinct_names(dataset.classnames)

    def bind(self, model: ImageTextEncoder) -> "_Classifier":
        """Embed the class names once."""
        weights = model.text.classifier(self.dataset.classnames, self.dataset.templates)
        bias = float(getattr(model.text, "bias", 0.0))
        if isinstance(model, ClassifyingEncoder):
            own = partial(model.class_logits, classnames=self.dataset.classnames)
            return _OwnClassifier(model, weights, float(model.text.scale), self.classes, bias, own)
        return _Classifier(model, weights, float(model.text.scale), self.classes, bias)

    def score(self, prediction: str, sample: Sample) -> float:
        """100 if the class is right, else 0."""
        right = sample.references[0] if sample.label is None else self.classes[sample.label]
        return 100.0 * (prediction == right)

    def broken(self, score: float, sample: Sample) -> bool:
        """A wrong class is as wrong as it gets."""
        return score == 0

    def applies(self, goal: str, sample: Sample) -> bool:
        """Rival classes exist up to the number of classes, and targeted DLR needs four."""
        classes = len(self.classes)
        return goal == "untargeted" or (classes >= 4 and rival_rank(goal) < classes)

    def checks(self, victim: Victim) -> list[SanityCheck]:
        """Class names must have embeddings that differ."""
        return [told_apart(victim.weights, self.dataset.classnames)] if isinstance(victim, _Classifier) else []


def distinct_names(classnames: Sequence[str]) -> tuple[str, ...]:
    """What a prediction is called: a name that several classes share is followed by "#" and the class's index.

    Of ImageNet's 1000 classes two are called "missile" and two "sunglasses".
    """
    count = Counter(classnames)
    return tuple(f"{name} #{k}" if count[name] > 1 else name for k, name in enumerate(classnames))


def told_apart(weights: Tensor, classnames: Sequence[str]) -> SanityCheck:
    """Whether classes of different names have different embeddings; of those that coincide, one is always right.

    Names that a text tower has no words for can come to the same. Classes of one name coincide by intention.

    Args:
        weights: (D, K), unit columns.
        classnames: K.
    """
    pairs = (weights.T @ weights > COINCIDE).triu(diagonal=1).nonzero().tolist()
    alike = [(classnames[i], classnames[j]) for i, j in pairs if classnames[i] != classnames[j]]
    if not alike:
        return SanityCheck("classes_told_apart", True, f"{len(classnames)} classes have embeddings that differ")
    shown = "; ".join(f"{one!r} and {other!r}" for one, other in alike[:SHOWN])
    more = f"; and {len(alike) - SHOWN} more pairs" if len(alike) > SHOWN else ""
    return SanityCheck(
        "classes_told_apart",
        False,
        f"the text tower gives one embedding to different classes: {shown}{more}. Name them in words that it knows",
    )


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
    classes: Sequence[str]  # distinct
    bias: float = 0.0  # of a SigLIP: it moves all logits alike, and so neither the nearest class nor an attack's loss

    def logits(self, images: Tensor) -> Tensor:
        """(b, 3, H, W) -> (b, K)."""
        return self.scale * normalize(self.encoder(images), dim=-1) @ self.weights + self.bias

    def predict(self, images: Tensor, samples: Sequence[Sample]) -> list[Answer]:
        """Class names; of logits that are not finite, the largest says nothing."""
        with torch.no_grad():
            logits = self.logits(images)
        return answers_of([self.classes[k] for k in logits.argmax(1).tolist()], logits.isfinite().all(1))

    def objective(self, images: Tensor, samples: Sequence[Sample], goal: str) -> Objective:
        """Goals "untargeted" (cross-entropy) and "targeted-N" (targeted DLR to the clean image's N-th rival)."""
        index = {name: k for k, name in enumerate(self.classes)}
        true = [index[s.references[0]] if s.label is None else s.label for s in samples]
        labels = torch.tensor(true, device=images.device)
        if goal == "untargeted":
            return Classification(self.logits, labels)
        rank = rival_rank(goal)
        with torch.no_grad():
            targets = runner_up(self.logits(images), labels, rank)
        # where no rival has a finite logit the rank may fall on the label itself
        targets = torch.where(targets == labels, (labels + 1) % len(self.classes), targets)
        return TargetedClassification(self.logits, labels, targets)


@dataclass(frozen=True)
class _OwnClassifier(_Classifier):
    """Of an encoder that tells classes apart in a way of its own."""

    own: Callable[[Tensor], Tensor] = torch.zeros_like  # given by `ZeroShot.bind`

    def logits(self, images: Tensor) -> Tensor:
        """(b, 3, H, W) -> (b, K)."""
        return self.own(images)
