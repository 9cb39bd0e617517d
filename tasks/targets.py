"""Is an image taken for its target? What a victim says of it, compared by a judge with what the target shows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from torch import Tensor

from attacks.objective import Objective
from tasks.base import Answer, Dataset, Sample, Victim, VisionLanguageModel, asks_prompts
from tasks.captioning import Captioner
from tasks.judges import WORDS, Judge, Words
from tasks.protocol import STRICT, Protocol

LOCAL = "text"  # the judge that compares texts by the text towers of encoders on this machine


class _TakenFor:
    """What the three tasks share; a sample's references are what its target shows."""

    name: ClassVar[str]
    metric: ClassVar[str]
    judge: ClassVar[str]
    version: ClassVar[int] = 1
    ceiling: ClassVar[float | None] = 100.0
    worst: ClassVar[Literal["max"]] = "max"
    model: ClassVar[Literal["vlm"]] = "vlm"
    answers: ClassVar[str] = "text"
    part_scores_as_whole: ClassVar[bool] = True
    own_captions: ClassVar[bool] = False
    needs: ClassVar[str] = ""

    def __init__(self, dataset: Dataset, protocol: Protocol = STRICT, judge: Judge | None = None) -> None:
        self.compare: Judge = judge or Words()
        self.protocol = protocol
        samples = tuple(replace(s, references=s.references or self.wanted(s)) for s in dataset.samples)
        self.dataset = replace(dataset, samples=samples)

    @classmethod
    def fits(cls, dataset: Dataset) -> str | None:
        """Each sample needs a prompt and a target."""
        if not all(sample.target is not None for sample in dataset.samples):
            return "has samples without a target; take a dataset of pairs"
        if not cls.own_captions and not all(cls.wanted(sample) for sample in dataset.samples):
            return f"has targets of which it does not say {cls.needs}"
        return asks_prompts(dataset)

    @classmethod
    def wanted(cls, sample: Sample) -> tuple[str, ...]:
        """What the judge compares an answer with."""
        raise NotImplementedError

    def bind(self, model: VisionLanguageModel) -> "_Speaker":
        """A sample's prompt asks for a caption."""
        return _Speaker(model, self.dataset.max_new_tokens)

    def score(self, prediction: str, sample: Sample) -> float:
        """100 times what the judge says."""
        return 100.0 * self.compare(prediction, sample.references)

    def broken(self, score: float, sample: Sample) -> bool:
        """All is said that was wanted."""
        return score >= 100

    def applies(self, goal: str, sample: Sample) -> bool:
        """Goals of other tasks make no sense here.

        Raises:
            ValueError: always; goals that lead to a target need no task.
        """
        raise ValueError(f"goal {goal!r} leads to no target; choose an attack such as m-attack or attackvlm-ii")


class Keywords(_TakenFor):
    """Keyword matching rate: the share of the target's keywords that the caption holds (M-Attack, arXiv 2503.10635)."""

    name: ClassVar[str] = "keywords"
    metric: ClassVar[str] = "keywords matched (%)"
    judge: ClassVar[str] = WORDS
    needs: ClassVar[str] = "keywords"

    @classmethod
    def wanted(cls, sample: Sample) -> tuple[str, ...]:
        """The target's keywords."""
        return () if sample.target is None else sample.target.keywords


class TargetText(_TakenFor):
    """Cosine of the embeddings of the caption and of the target's text (AttackVLM, arXiv 2305.16934), times 100."""

    name: ClassVar[str] = "target-text"
    metric: ClassVar[str] = "similarity to the target's text (x 100)"
    judge: ClassVar[str] = LOCAL
    needs: ClassVar[str] = "a text"

    @classmethod
    def wanted(cls, sample: Sample) -> tuple[str, ...]:
        """The target's text."""
        return () if sample.target is None or not sample.target.text else (sample.target.text,)


class TargetCaption(_TakenFor):
    """Similarity of the caption to the one that the victim itself gives of the target (M-Attack), times 100.

    M-Attack counts an image as successful from 0.3 on, by a language model's judgement; tables show that share.
    """

    name: ClassVar[str] = "target-caption"
    metric: ClassVar[str] = "similarity to the victim's caption of the target (x 100)"
    judge: ClassVar[str] = LOCAL
    own_captions: ClassVar[bool] = True

    @classmethod
    def wanted(cls, sample: Sample) -> tuple[str, ...]:
        """Nothing before the victim has been asked."""
        return ()

    def settled(self, victim: Victim, look: Callable[[Sequence[Sample]], Tensor], batch: int = 32) -> Self:
        """The task with the victim's captions of the targets.

        Args:
            victim: to ask.
            look: the target images (b, 3, H, W) of samples, as the victim sees them.
            batch: samples asked about at once.

        Raises:
            ValueError: the victim has no caption of a target.
        """
        samples: list[Sample] = []
        for first in range(0, len(self.dataset.samples), batch):
            some = self.dataset.samples[first : first + batch]
            answers = victim.predict(look(some), some)
            samples += [self._with_caption(*pair) for pair in zip(some, answers, strict=True)]
        return type(self)(replace(self.dataset, samples=tuple(samples)), self.protocol, self.compare)

    def _with_caption(self, sample: Sample, answer: Answer) -> Sample:
        if answer.error is not None or not answer.text:
            raise ValueError(f"sample {sample.id}: the victim gave no caption of the target: {answer.error or 'empty'}")
        return replace(sample, references=(answer.text,))


@dataclass(frozen=True)
class _Speaker(Captioner):
    """A model asked for captions."""

    def objective(self, images: Tensor, samples: Sequence[Sample], goal: str) -> Objective:
        """No goal goes through the language model.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"goal {goal!r} leads to no target; choose an attack such as m-attack or attackvlm-ii")
