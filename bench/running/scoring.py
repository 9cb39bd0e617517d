"""From images to scores: what a victim says, and for a randomised one over fresh draws."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import fsum
from typing import TypeGuard

from torch import Tensor

from bench.models.defences.chain import Defended
from bench.models.defences.draws import Draws, stream
from bench.records import Record
from bench.running.plugins import ask, score_of
from tasks.base import Answer, Sample, Task, Victim

DRAWS = {"score": 10, "screen": 5}  # that a score is the mean of, and others that choose the worst attack


@dataclass(frozen=True)
class Occasion:
    """When a victim is asked; its draws depend on this and on the sample.

    Attributes:
        seed: of the run.
        step: "clean", or the attack step.
        eps: radius as recorded.
    """

    seed: int
    step: str
    eps: float


@dataclass(frozen=True)
class Said:
    """What a victim says of one image, and what that scores.

    Attributes:
        answer: of a randomised victim, the one it gives most often.
        score: None with an error.
        draws: scores of the draws behind it, of a randomised victim.
        screen: mean score of other draws: see `bench.records.types.Record`.
    """

    answer: Answer
    score: float | None
    draws: tuple[float, ...] | None = None
    screen: float | None = None

    @classmethod
    def failed(cls, error: str) -> "Said":
        """Nothing that counts was said."""
        return cls(Answer("", error), None)

    def with_error(self, error: str) -> "Said":
        """What was said does not count; what is known of the call stays."""
        return Said(replace(self.answer, text="", error=error), None)


def is_randomised(victim: Victim) -> TypeGuard[Defended]:
    """Whether a victim's answers change from draw to draw."""
    return isinstance(victim, Defended) and victim.randomised


def said_of(
    task: Task, victim: Victim, images: Tensor, samples: Sequence[Sample], occasions: Sequence[Occasion]
) -> list[Said]:
    """What a victim says of B images (B, 3, H, W), each asked about on its own occasion."""
    if not is_randomised(victim):
        return [_scored(task, answer, s) for answer, s in zip(ask(victim, images, samples), samples, strict=True)]
    screens = _drawn(task, victim, images, samples, occasions, "screen")
    scores = _drawn(task, victim, images, samples, occasions, "score")
    return [_mean(screen, score) for screen, score in zip(screens, scores, strict=True)]


def _scored(task: Task, answer: Answer, sample: Sample) -> Said:
    said = Said(answer, None)
    return said.with_error(answer.error) if answer.error else replace(said, score=score_of(task, answer, sample))


def _drawn(
    task: Task,
    victim: Defended,
    images: Tensor,
    samples: Sequence[Sample],
    occasions: Sequence[Occasion],
    purpose: str,
) -> list[list[Said]]:
    """What is said of each image under each of a purpose's `DRAWS`."""
    by_draw = []
    keys = [(o.seed, o.step, o.eps, sample.id, purpose) for o, sample in zip(occasions, samples, strict=True)]
    for number in range(DRAWS[purpose]):
        draws = Draws(tuple(stream(*key, number) for key in keys))
        answers = ask(victim.drawn(draws), images, samples)
        by_draw.append([_scored(task, answer, sample) for answer, sample in zip(answers, samples, strict=True)])
    return [list(of_image) for of_image in zip(*by_draw, strict=True)]


def _mean(screens: Sequence[Said], scores: Sequence[Said]) -> Said:
    error = next((said.answer.error for said in (*screens, *scores) if said.answer.error), None)
    if error is not None:
        return Said.failed(error)
    draws, others = (tuple(one.score for one in part if one.score is not None) for part in (scores, screens))
    text = Counter(said.answer.text for said in scores).most_common(1)[0][0]
    return Said(Answer(text), fsum(draws) / len(draws), draws, fsum(others) / len(others))


def record_of(sample: Sample, occasion: Occasion, said: Said, *, seconds: float) -> Record:
    """The record of what was said, or of an error, which has no score."""
    return Record(
        sample_id=sample.id,
        group=sample.group,
        step=occasion.step,
        radius=occasion.eps,
        prediction=said.answer.text,
        score=said.score,
        loss=None,
        distance=0.0,
        evaluations=0,
        error=said.answer.error,
        seconds=round(seconds, 4),
        draws=said.draws,
        screen=said.screen,
        call=said.answer.call,
    )
