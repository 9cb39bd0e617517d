"""Image captioning (attacked as in Schlarmann et al. 2024, section 4.1)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from attacks.checks import SanityCheck
from attacks.objective import Objective, Progress
from tasks.base import Answer, AnswerLoss, Dataset, Prompt, Sample, Victim, VisionLanguageModel, asks_prompts
from tasks.metrics import Cider
from tasks.protocol import STRICT, Protocol
from tasks.vqa import reference_rank


class Captioning:
    """Captions scored with CIDEr-D x 100 against five references.

    Document frequencies come from the references of the evaluated images, so a score belongs to its sample selection.
    """

    name: ClassVar[str] = "captioning"
    version: ClassVar[int] = 1
    metric: ClassVar[str] = "CIDEr"
    ceiling: ClassVar[float | None] = None
    worst: ClassVar[Literal["min"]] = "min"
    model: ClassVar[Literal["vlm"]] = "vlm"
    answers: ClassVar[str] = "text"
    part_scores_as_whole: ClassVar[bool] = False  # document frequencies are those of the selection

    @classmethod
    def fits(cls, dataset: Dataset) -> str | None:
        """Each sample needs a prompt, and CIDEr two images."""
        if len({sample.group for sample in dataset.samples}) == 1:
            return "holds one image, and CIDEr weighs words by how many images have them: take at least two"
        return asks_prompts(dataset)

    def __init__(self, dataset: Dataset, protocol: Protocol = STRICT) -> None:
        self.dataset = dataset
        self.cider = Cider({s.id: s.references for s in dataset.samples})

    def bind(self, model: VisionLanguageModel) -> "Captioner":
        """Every image gets the same prompt, that of its sample."""
        return Captioner(model, self.dataset.max_new_tokens)

    def score(self, prediction: str, sample: Sample) -> float:
        """CIDEr of one image; their mean is the corpus score."""
        return self.cider.score(sample.id, prediction)

    def broken(self, score: float, sample: Sample) -> bool:
        """The paper's threshold, 10 for COCO and 2 for Flickr30k."""
        return score < self.dataset.broken_below

    def applies(self, goal: str, sample: Sample) -> bool:
        """The n-th reference must exist."""
        return reference_rank(goal) < len(_led_away_from(sample))

    def checks(self, victim: Victim) -> list[SanityCheck]:
        """Each image's own references must be able to score: CIDEr gives no weight to words that all images have."""
        stuck = [s.id for s in self.dataset.samples if not any(self.cider.score(s.id, r) for r in s.references)]
        detail = f"of {len(self.dataset.samples)} images, {len(stuck)} score 0 whatever is said of them"
        if stuck:
            detail += f", for every image has the words of their references; the first is {stuck[0]!r}"
        return [SanityCheck("references_can_score", not stuck, detail)]


def _led_away_from(sample: Sample) -> tuple[str, ...]:
    """The captions of which "reference-N" is the N-th; in COCO not the very texts that are scored against."""
    return sample.references if sample.attack_references is None else sample.attack_references


def clean_caption(text: str) -> str:
    """Keep what precedes a repeated prompt; drop quotation marks."""
    return text.split("Output", 1)[0].replace('"', "").strip()


@dataclass(frozen=True)
class Captioner:
    """A model asked for captions."""

    model: VisionLanguageModel
    max_new_tokens: int

    def prompts(self, samples: Sequence[Sample]) -> list[Prompt]:
        """The samples' prompts, which ask for a caption."""
        return [Prompt.of(Captioning.name, s.id, s.prompt) for s in samples]

    def predict(self, images: Tensor, samples: Sequence[Sample]) -> list[Answer]:
        """Greedy captions."""
        said = self.model.generate(images, self.prompts(samples), max_new_tokens=self.max_new_tokens)
        return [replace(answer, text=clean_caption(answer.text)) for answer in said]

    def objective(self, images: Tensor, samples: Sequence[Sample], goal: str) -> Objective:
        """Goals as of `reference_rank`: away from the N-th reference caption."""
        rank = reference_rank(goal)
        wanted = [_led_away_from(s)[rank] for s in samples]
        return CaptionObjective(self.model.answers(self.prompts(samples), wanted))


@dataclass(frozen=True)
class CaptionObjective:
    """Away from a caption; never fooled, since only a generated caption's CIDEr tells."""

    loss: AnswerLoss

    def __call__(self, images: Tensor, rows: Tensor) -> Progress:
        """Score images (b, 3, H, W)."""
        nll = self.loss(images, rows).nll
        return Progress(nll, torch.zeros_like(nll, dtype=torch.bool))
