"""Visual question answering (Antol et al. 2015; attacked as in Schlarmann et al. 2024, section 4.1)."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from attacks.objective import Objective, Progress
from tasks.base import AnswerLoss, Dataset, Sample, VisionLanguageModel
from tasks.metrics import vqa_accuracy
from tasks.metrics.vqa_accuracy import ARTICLES, NUMBERS
from tasks.protocol import STRICT, Protocol

REFERENCE, TARGET = "reference-", "target:"


class VQA:
    """Short answers scored against ten annotators with the official VQA accuracy, in percent."""

    name: ClassVar[str] = "vqa"
    version: ClassVar[int] = 1
    metric: ClassVar[str] = "VQA accuracy (%)"
    worst: ClassVar[Literal["min"]] = "min"
    model: ClassVar[Literal["vlm"]] = "vlm"

    def __init__(self, dataset: Dataset, protocol: Protocol = STRICT) -> None:
        self.dataset, self.protocol = dataset, protocol

    def bind(self, model: VisionLanguageModel) -> "_Answerer":
        """Prompts are the questions, with the data set's suffix."""
        return _Answerer(model, self.dataset)

    def score(self, prediction: str, sample: Sample) -> float:
        """Official accuracy of the first phrase of an answer."""
        score = vqa_accuracy(prediction, sample.references, most_periods=self.protocol.most_periods)
        return round(score, 2) if self.protocol.rounded_scores else score

    def lost(self, score: float, sample: Sample) -> bool:
        """No annotator agrees."""
        return score == 0

    def applies(self, goal: str, sample: Sample) -> bool:
        """The n-th most frequent answer must exist."""
        return goal.startswith(TARGET) or reference_rank(goal) < len(set(sample.references))


def reference_rank(goal: str) -> int:
    """Which reference an attack leads away from: "reference-N" is the N-th, "untargeted" the first.

    Raises:
        ValueError: another goal.
    """
    if goal == "untargeted":
        return 0
    if not goal.startswith(REFERENCE):
        raise ValueError(f"goal {goal!r} makes no sense for a text answer; choose an attack made for it")
    return int(goal.removeprefix(REFERENCE))


def frequent_answers(references: Sequence[str]) -> list[str]:
    """Distinct raw answers, the most frequent first, ties in order of first appearance."""
    return [answer for answer, _ in Counter(references).most_common()]


def spellings(answer: str) -> set[str]:
    """How a model may begin an answer that is scored as this one: in other cases, behind an article, as a number word.

    What begins otherwise may still count; no claim depends on it (see `AnswerObjective`).
    """
    words = [answer, *(word for word, digit in NUMBERS.items() if digit == answer), NUMBERS.get(answer.lower(), answer)]
    cases = {form for word in words for form in (word, word.lower(), word.upper(), word.capitalize())}
    return cases | {form for article in ARTICLES for form in (article, article.capitalize())}


def first_phrase(text: str) -> str:
    """Cut an answer where the model begins a new question, or at the first comma and space."""
    return re.split(r"Question|Answer|Short|, ", text, maxsplit=1)[0].strip()


@dataclass(frozen=True)
class _Answerer:
    model: VisionLanguageModel
    dataset: Dataset
    begins: dict[str, int] = field(default_factory=dict)  # text -> first token: annotators say the same things

    def prompts(self, samples: Sequence[Sample]) -> list[str]:
        return [s.prompt + self.dataset.prompt_suffix for s in samples]

    def predict(self, images: Tensor, samples: Sequence[Sample]) -> list[str]:
        """Greedy answers, cut to their first phrase."""
        said = self.model.generate(images, self.prompts(samples), max_new_tokens=self.dataset.max_new_tokens)
        return [first_phrase(text) for text in said]

    def _first_tokens(self, references: Sequence[str]) -> list[int]:
        """What accepted answers begin with, in all their spellings."""
        texts = sorted(set().union(*map(spellings, set(references))))
        unknown = [text for text in texts if text not in self.begins]
        self.begins.update(zip(unknown, self.model.first_tokens(unknown), strict=True))
        return sorted({self.begins[text] for text in texts})

    def objective(self, images: Tensor, samples: Sequence[Sample], goal: str) -> Objective:
        """Goals as of `reference_rank` (away from the N-th most frequent answer) and "target:TEXT" (towards it)."""
        prompts = self.prompts(samples)
        accepted = [self._first_tokens(s.references) for s in samples]
        if goal.startswith(TARGET):
            wanted = [goal.removeprefix(TARGET)] * len(samples)
            return AnswerObjective(self.model.answers(prompts, wanted), accepted, sign=-1.0)
        rank = reference_rank(goal)
        wanted = [frequent_answers(s.references)[rank] for s in samples]
        return AnswerObjective(self.model.answers(prompts, wanted), accepted, sign=1.0)


class AnswerObjective:
    """Away from (sign 1) or towards (sign -1) given answers; fooled once no accepted answer seems to follow.

    An answer whose first token begins none of the accepted answers hardly becomes one of them. The runner verifies
    each verdict by generating, and searches on where the answer still counts, so an accepted answer spelled
    otherwise costs time, never correctness.
    """

    def __init__(self, loss: AnswerLoss, accepted: Sequence[Sequence[int]], sign: float) -> None:
        width = max(len(tokens) for tokens in accepted)
        padded = [[*tokens, *[tokens[0]] * (width - len(tokens))] for tokens in accepted]
        self.accepted = torch.tensor(padded)
        self.loss, self.sign = loss, sign

    def __call__(self, images: Tensor, rows: Tensor) -> Progress:
        """Judge images (b, 3, H, W)."""
        scores = self.loss(images, rows)
        accepted = self.accepted.to(rows.device)[rows]
        fooled = (scores.first[:, None] != accepted).all(dim=1)
        return Progress(self.sign * scores.nll, fooled)
