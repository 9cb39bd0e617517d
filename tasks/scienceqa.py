"""Reasoning: multiple-choice questions about an image (ScienceQA, Lu et al. 2022, arXiv 2209.09513)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from attacks.objective import Objective, Progress
from tasks.base import Answer, AnswerLoss, Dataset, Prompt, Sample, VisionLanguageModel, asks_prompts
from tasks.metrics.letters import LETTERS, published_letter, stated_letter
from tasks.pope import TowardsAnswer
from tasks.protocol import STRICT, Protocol

WRONG = "wrong-"  # a goal: "wrong-1" leads to the first of the other options, "wrong-2" to the second

RULES: dict[str, Callable[[str, Sequence[str]], int | None]] = {"stated": stated_letter, "published": published_letter}
"""How an answer is read, by the name that a protocol gives it."""


class ScienceQA:
    """Multiple choice, scored in percent of right options.

    A sample has its options in `Sample.choices` and its right option's index in `Sample.label`.
    """

    name: ClassVar[str] = "scienceqa"
    version: ClassVar[int] = 1
    metric: ClassVar[str] = "accuracy (%)"
    ceiling: ClassVar[float | None] = 100.0
    worst: ClassVar[Literal["min"]] = "min"
    model: ClassVar[Literal["vlm"]] = "vlm"
    answers: ClassVar[str] = "choice"
    part_scores_as_whole: ClassVar[bool] = True

    def __init__(self, dataset: Dataset, protocol: Protocol = STRICT) -> None:
        self.dataset, self.protocol = dataset, protocol
        self.read = RULES[protocol.letter]

    @classmethod
    def fits(cls, dataset: Dataset) -> str | None:
        """Every sample has two to five options and knows the right one."""
        for sample in dataset.samples:
            if not 2 <= len(sample.choices) <= len(LETTERS):
                return f"has sample {sample.id!r} with {len(sample.choices)} options; 2 to {len(LETTERS)} are needed"
            if sample.label is None or not 0 <= sample.label < len(sample.choices):
                return f"has sample {sample.id!r}, which does not say which option is right"
        return asks_prompts(dataset)

    def bind(self, model: VisionLanguageModel) -> "_ChoosingVictim":
        """Prompts are the questions with their options, and the dataset's suffix."""
        return _ChoosingVictim(model, self.dataset)

    def score(self, prediction: str, sample: Sample) -> float:
        """100 if the right option is named by the protocol's rule, else 0."""
        return 100.0 * (self.read(prediction, sample.choices) == sample.label)

    def broken(self, score: float, sample: Sample) -> bool:
        """Another option is named, or none."""
        return score == 0

    def applies(self, goal: str, sample: Sample) -> bool:
        """The n-th wrong option must exist.

        Raises:
            ValueError: a goal for another task.
        """
        if goal in ("untargeted", "reference-0"):
            return True
        if goal.startswith(WRONG):
            return int(goal.removeprefix(WRONG)) < len(sample.choices)
        if goal.startswith(("reference-", "target:")):
            return False
        raise ValueError(f"goal {goal!r} makes no sense for multiple choice; choose another attack, such as choices")


@dataclass(frozen=True)
class _ChoosingVictim:
    model: VisionLanguageModel
    dataset: Dataset

    def prompts(self, samples: Sequence[Sample]) -> list[Prompt]:
        return [Prompt.of(ScienceQA.name, s.id, s.prompt, self.dataset.prompt_suffix) for s in samples]

    def predict(self, images: Tensor, samples: Sequence[Sample]) -> list[Answer]:
        """Greedy answers as they are: the protocol's rule reads them."""
        return self.model.generate(images, self.prompts(samples), max_new_tokens=self.dataset.max_new_tokens)

    def objective(self, images: Tensor, samples: Sequence[Sample], goal: str) -> Objective:
        """Away from the right letter ("untargeted"), or towards the n-th wrong one ("wrong-N")."""
        prompts = self.prompts(samples)
        right = [sample.label or 0 for sample in samples]
        if not goal.startswith(WRONG):
            return AwayFromAnswer(self.model.answers(prompts, [LETTERS[k] for k in right]))
        rank = int(goal.removeprefix(WRONG))
        others = [[k for k in range(len(s.choices)) if k != r] for s, r in zip(samples, right, strict=True)]
        return TowardsAnswer(self.model.answers(prompts, [LETTERS[wrong[rank - 1]] for wrong in others]))


@dataclass(frozen=True)
class AwayFromAnswer:
    """Away from a given answer; never claims success, for other words may name the same option."""

    loss: AnswerLoss

    def __call__(self, images: Tensor, rows: Tensor) -> Progress:
        """Score images (b, 3, H, W); rows (b,) names the sample of each."""
        scores = self.loss(images, rows)
        return Progress(scores.nll, scores.greedy & False)
