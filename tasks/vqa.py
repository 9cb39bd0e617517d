"""Visual question answering (Antol et al. 2015; attacked as in Schlarmann et al. 2024, section 4.1)."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from attacks.checks import SanityCheck
from attacks.objective import Objective, Progress
from tasks.base import Answer, AnswerLoss, Dataset, Prompt, Sample, Victim, VisionLanguageModel, asks_prompts
from tasks.metrics import exact_match, vqa_accuracy
from tasks.openings import Openings
from tasks.protocol import STRICT, Protocol

REFERENCE, TARGET = "reference-", "target:"
EXACT = "exact"
SCORINGS: dict[str, tuple[str, Callable[..., float]]] = {
    "annotators": ("VQA accuracy (%)", vqa_accuracy),
    EXACT: ("exact match (%)", exact_match),
}
"""Name of a metric and the metric, by what `Dataset.scoring` says."""
ENOUGH = 4  # annotators: an answer is right in full if three others agree with the one it is compared with


class VQA:
    """Short answers scored against ten annotators with the official VQA accuracy, in percent.

    A dataset whose questions have one right answer each asks for exact match instead, by its `Dataset.scoring`.
    """

    name: ClassVar[str] = "vqa"
    version: ClassVar[int] = 1
    metric: str = "VQA accuracy (%)"
    ceiling: ClassVar[float | None] = 100.0
    worst: ClassVar[Literal["min"]] = "min"
    model: ClassVar[Literal["vlm"]] = "vlm"
    answers: ClassVar[str] = "text"
    part_scores_as_whole: ClassVar[bool] = True

    @classmethod
    def fits(cls, dataset: Dataset) -> str | None:
        """Each sample needs a prompt."""
        if dataset.scoring not in SCORINGS:
            return f"asks for the scoring {dataset.scoring!r}; there are {', '.join(SCORINGS)}"
        return asks_prompts(dataset)

    def __init__(self, dataset: Dataset, protocol: Protocol = STRICT) -> None:
        self.dataset, self.protocol = dataset, protocol
        self.metric, self._score = SCORINGS[dataset.scoring]

    def bind(self, model: VisionLanguageModel) -> "_Answerer":
        """Prompts are the questions, with the dataset's suffix."""
        return _Answerer(model, self.dataset, Openings(model.token_texts()), self.protocol)

    def score(self, prediction: str, sample: Sample) -> float:
        """Official accuracy, or exact match, of the first phrase of an answer."""
        score = self._score(prediction, sample.references, most_periods=self.protocol.most_periods)
        return round(score, 2) if self.protocol.rounded_scores else score

    def broken(self, score: float, sample: Sample) -> bool:
        """No annotator agrees."""
        return score == 0

    def applies(self, goal: str, sample: Sample) -> bool:
        """The n-th most frequent answer must exist."""
        return goal.startswith(TARGET) or reference_rank(goal) < len(set(sample.references))

    def checks(self, victim: Victim) -> list[SanityCheck]:
        """The official accuracy needs four annotators per question for an answer to be right in full."""
        few = sum(len(sample.references) < ENOUGH for sample in self.dataset.samples)
        total = len(self.dataset.samples)
        detail = f"{few} of {total} questions have fewer than {ENOUGH} annotators"
        if few == 0 or self.dataset.scoring == EXACT:
            return [SanityCheck("enough_annotators", True, f"{detail}; scoring is {self.dataset.scoring!r}")]
        highest = sum(max(self.score(r, s) for r in set(s.references)) for s in self.dataset.samples) / total
        detail += (
            f": with the official accuracy no model can score above {highest:.1f} % here. Where each question has one "
            f'right answer, give the dataset\'s row scoring = "{EXACT}"'
        )
        return [SanityCheck("enough_annotators", False, detail)]


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


def first_phrase(text: str) -> str:
    """Cut an answer where the model begins a new question, or at the first comma and space."""
    return re.split(r"Question|Answer|Short|, ", text, maxsplit=1)[0].strip()


@dataclass(frozen=True)
class _Answerer:
    model: VisionLanguageModel
    dataset: Dataset
    openings: Openings
    protocol: Protocol

    def prompts(self, samples: Sequence[Sample]) -> list[Prompt]:
        return [Prompt.of(VQA.name, s.id, s.prompt, self.dataset.prompt_suffix) for s in samples]

    def predict(self, images: Tensor, samples: Sequence[Sample]) -> list[Answer]:
        """Greedy answers, cut to their first phrase."""
        said = self.model.generate(images, self.prompts(samples), max_new_tokens=self.dataset.max_new_tokens)
        return [replace(answer, text=first_phrase(answer.text)) for answer in said]

    def objective(self, images: Tensor, samples: Sequence[Sample], goal: str) -> Objective:
        """Goals as of `reference_rank` (away from the N-th most frequent answer) and "target:TEXT" (towards it)."""
        prompts = self.prompts(samples)
        accepted = torch.stack([self.openings.of(s.references) for s in samples]).to(images.device)
        if not self.protocol.stops_at_answers:
            accepted = torch.ones_like(accepted)  # whatever is said, the attack goes on
        if goal.startswith(TARGET):
            wanted = [goal.removeprefix(TARGET)] * len(samples)
            return AnswerObjective(self.model.answers(prompts, wanted), accepted, sign=-1.0)
        rank = reference_rank(goal)
        wanted = [frequent_answers(s.references)[rank] for s in samples]
        return AnswerObjective(self.model.answers(prompts, wanted), accepted, sign=1.0)


@dataclass(frozen=True)
class AnswerObjective:
    """Away from (sign 1) or towards (sign -1) given answers; fooled once no accepted answer can follow.

    Attributes:
        accepted: (B, V) bool: the tokens that an answer of each sample may begin with (see `tasks.openings`). With any
            other the score is 0, and the attack on that sample ends.
    """

    loss: AnswerLoss
    accepted: Tensor
    sign: float

    def __call__(self, images: Tensor, rows: Tensor) -> Progress:
        """Score images (b, 3, H, W)."""
        scores = self.loss(images, rows)
        return Progress(self.sign * scores.nll, ~self.accepted[rows, scores.first])
