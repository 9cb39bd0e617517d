"""A task from outside whose metric runs from 0 to 1: how sure a classifier is of the true class."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.config import TaskPlan
from tasks.base import Answer, Sample, answers_of
from tasks.zeroshot import ZeroShot


class Certainty(ZeroShot):
    """The probability of the true class, as the model says it; broken where another class is more probable."""

    name = "certainty"
    version = 1
    metric = "probability"
    ceiling = 1.0
    plan = TaskPlan(("mini-shape",), 12, "apgd")

    def bind(self, model):
        return Sure(super().bind(model))

    def checks(self, victim):
        return super().checks(victim.victim)

    def score(self, prediction: str, sample: Sample) -> float:
        return float(prediction)

    def broken(self, score: float, sample: Sample) -> bool:
        return score < 1 / len(self.dataset.classnames)


@dataclass(frozen=True)
class Sure:
    """The zero-shot victim, answering with the probability of the true class."""

    victim: object

    def predict(self, images: Tensor, samples: Sequence[Sample]) -> list[Answer]:
        with torch.no_grad():
            sure = self.victim.logits(images).softmax(1)
        own = sure[
            torch.arange(len(samples)),
            torch.tensor([self.victim.classes.index(sample.references[0]) for sample in samples]),
        ]
        return answers_of([f"{p:.6f}" for p in own.tolist()], own.isfinite())

    def objective(self, images: Tensor, samples: Sequence[Sample], goal: str):
        return self.victim.objective(images, samples, goal)
