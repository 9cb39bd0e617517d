"""Hallucination: whether a model sees objects that are not there (POPE, Li et al. 2023, arXiv 2305.10355)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from attacks.objective import Objective, Progress
from tasks.base import Answer, AnswerLoss, Dataset, Prompt, Sample, VisionLanguageModel, asks_prompts
from tasks.metrics.yes_no import NO, RULES, YES
from tasks.protocol import STRICT, Protocol

GOALS = ("untargeted", "reference-0")  # both mean: towards the wrong answer


class Pope:
    """Yes-or-no questions about objects, scored in percent of right answers; precision, recall and F1 from the same.

    A sample's only reference is "yes" or "no".
    """

    name: ClassVar[str] = "pope"
    version: ClassVar[int] = 1
    metric: ClassVar[str] = "accuracy (%)"
    ceiling: ClassVar[float | None] = 100.0
    worst: ClassVar[Literal["min"]] = "min"
    model: ClassVar[Literal["vlm"]] = "vlm"
    answers: ClassVar[str] = "yes-no"
    part_scores_as_whole: ClassVar[bool] = True

    def __init__(self, dataset: Dataset, protocol: Protocol = STRICT) -> None:
        self.dataset, self.protocol = dataset, protocol
        self.read = RULES[protocol.yes_no]

    @classmethod
    def fits(cls, dataset: Dataset) -> str | None:
        """Every sample asks something, and its answer is yes or no."""
        for sample in dataset.samples:
            if sample.references not in ((YES,), (NO,)):
                return f"has sample {sample.id!r} with the answer {sample.references!r}, neither yes nor no"
        return asks_prompts(dataset)

    def bind(self, model: VisionLanguageModel) -> "_YesNoVictim":
        """Prompts are the questions, with the dataset's suffix."""
        return _YesNoVictim(model, self.dataset)

    def score(self, prediction: str, sample: Sample) -> float:
        """100 for the right answer by the protocol's rule, else 0; what cannot be read is wrong."""
        return 100.0 * (self.read(prediction) == sample.references[0])

    def broken(self, score: float, sample: Sample) -> bool:
        """The answer is wrong."""
        return score == 0

    def applies(self, goal: str, sample: Sample) -> bool:
        """There is one wrong answer to lead to.

        Raises:
            ValueError: another goal.
        """
        if goal not in GOALS and not goal.startswith(("reference-", "target:")):
            raise ValueError(f"goal {goal!r} makes no sense for a yes-or-no question; choose another attack")
        return goal in GOALS


@dataclass(frozen=True)
class _YesNoVictim:
    model: VisionLanguageModel
    dataset: Dataset

    def prompts(self, samples: Sequence[Sample]) -> list[Prompt]:
        return [Prompt.of(Pope.name, s.id, s.prompt, self.dataset.prompt_suffix) for s in samples]

    def predict(self, images: Tensor, samples: Sequence[Sample]) -> list[Answer]:
        """Greedy answers as they are: the protocol's rule reads them."""
        return self.model.generate(images, self.prompts(samples), max_new_tokens=self.dataset.max_new_tokens)

    def objective(self, images: Tensor, samples: Sequence[Sample], goal: str) -> Objective:
        """Towards the wrong answer, spelled as the dataset's answers are."""
        yes, no = self.dataset.answer_words
        wrong = [no if sample.references[0] == YES else yes for sample in samples]
        return TowardsAnswer(self.model.answers(self.prompts(samples), wrong))


@dataclass(frozen=True)
class TowardsAnswer:
    """Towards a given answer; fooled when each of its tokens is the most likely one: greedy decoding says it."""

    loss: AnswerLoss

    def __call__(self, images: Tensor, rows: Tensor) -> Progress:
        """Score images (b, 3, H, W); rows (b,) names the sample of each."""
        scores = self.loss(images, rows)
        return Progress(-scores.nll, scores.greedy)
