"""What OpenFlamingo is asked: demonstrations, then the question, in the texts that it was trained and measured with.

Awadalla et al. 2023 (arXiv 2308.01390), section 4; attacked as in Schlarmann et al. 2024 (arXiv 2402.12336).
"""

import hashlib
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from bench.errors import UsageError
from bench.models.victims.openflamingo.vocabulary import END, IMAGE
from tasks.base import Sample
from tasks.captioning import clean_caption
from tasks.metrics.letters import LETTERS
from tasks.vqa import first_phrase

TEXT_ONLY = 2  # demonstrations without their images where no shots are asked for
POOL, POOL_SEED = 2048, 42  # training samples that demonstrations come from


@dataclass(frozen=True)
class Prompt:
    """A question as the model reads it.

    Attributes:
        text: with one ``<image>`` for each image, the last of them for the image that is asked about; the answer
            follows its end without a space.
        images: (3, H, W) in [0, 1] of the demonstrations, in the order of their tags.
    """

    text: str
    images: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Style:
    """One kind of question, for all datasets of that kind.

    Attributes:
        query: what precedes the answer, with a field ``{question}`` where there is a question.
        length_penalty: of beam search, as the published numbers have it.
        finish: what is kept of an answer.
    """

    query: str
    length_penalty: float
    finish: Callable[[str], str]


def first_answer(text: str) -> str:
    """Cut an answer where the model begins a new question; commas stay (OK-VQA)."""
    return re.split("Question|Answer|Short", text, maxsplit=1)[0].strip()


CAPTION = Style(f"{IMAGE}Output:", -2.0, clean_caption)
VQA = Style(f"{IMAGE}Question:{{question}} Short answer:", 0.0, first_phrase)
OKVQA = Style(VQA.query, VQA.length_penalty, first_answer)


def without_colons(text: str) -> str:
    """An answer or a caption as the original shows and attacks it; questions keep their colons.

    The original finds the answer behind the last colon. Nothing here depends on that, so an attack may keep them.
    """
    return text.replace(":", "")


class Demonstrations:
    """Training samples that are shown, with their answers, before a question.

    Which ones depends on the seed and the sample's id, and on nothing else. (The original draws anew in each round of
    an attack, from a generator that is never seeded.)

    Args:
        samples: of the training split; see `shown_answer`.
        seed: of the draws.
    """

    def __init__(self, samples: Sequence[Sample], seed: int = 0) -> None:
        self.samples, self.seed = tuple(samples), seed

    @classmethod
    def of(cls, samples: Sequence[Sample], seed: int = 0) -> "Demonstrations":
        """From the published pool: `POOL` of the training samples, drawn as the original draws them."""
        chosen = np.random.RandomState(POOL_SEED).choice(len(samples), min(POOL, len(samples)), replace=False)
        return cls([samples[i] for i in chosen], seed)

    def draw(self, sample_id: str, count: int) -> list[Sample]:
        """``count`` different samples for one id, itself never among them.

        Raises:
            UsageError: there are not so many.
        """
        others = [s for s in self.samples if s.id != sample_id]
        if len(others) < count:
            raise UsageError(f"{count} demonstrations are asked for, there are {len(others)}; use fewer shots")
        key = hashlib.sha256(repr((self.seed, sample_id)).encode()).digest()
        return random.Random(key).sample(others, count)


@dataclass(frozen=True)
class Asker:
    """Makes prompts of one style.

    Attributes:
        demonstrations: to draw from.
        shots: demonstrations with their images; 0 for two of them without.
        preprocess: opens and crops a demonstration's image: (3, H, W) in [0, 1].
    """

    style: Style
    demonstrations: Demonstrations
    shots: int
    preprocess: Callable[[Sample], Tensor]

    def prompt(self, sample_id: str, question: str = "") -> Prompt:
        """The prompt of one sample.

        Raises:
            UsageError: there are too few demonstrations, or a text holds a tag.
        """
        shown = self.demonstrations.draw(sample_id, self.shots or TEXT_ONLY)
        context = "".join(self._demonstration(s) for s in shown)
        if not self.shots:
            return Prompt(context.replace(IMAGE, "") + self._query(question))
        return Prompt(context + self._query(question), tuple(self.preprocess(s) for s in shown))

    def _demonstration(self, sample: Sample) -> str:
        answer = without_colons(shown_answer(sample).strip())
        return self._query(sample.prompt) + plain(answer) + END

    def _query(self, question: str) -> str:
        return self.style.query.replace("{question}", plain(question))


def shown_answer(sample: Sample) -> str:
    """What an example answers: the first reference, or of a multiple-choice question the letter of the right option."""
    if sample.choices and sample.label is not None:
        return LETTERS[sample.label]
    return sample.references[0]


def plain(text: str) -> str:
    """The same text.

    Raises:
        UsageError: it holds a tag of the model's.
    """
    for tag in (IMAGE, END):
        if tag in text:
            raise UsageError(f"the text {text!r} holds {tag}, which means something to OpenFlamingo; take it out")
    return text
