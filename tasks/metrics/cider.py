"""CIDEr-D (Vedantam, Zitnick and Parikh 2015, arXiv 1411.5726, section 5.3), as the COCO caption evaluation has it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import exp, log, sqrt

from tasks.metrics.ptb import tokenize

LONGEST = 4  # n-grams of 1 to 4 words
SIGMA = 6.0  # of the length penalty, in words
SCALE = 1000.0  # 10 in the paper, then the customary 100

Ngram = tuple[str, ...]


@dataclass(frozen=True)
class _Vector:
    """tf-idf weights of a caption by n-gram length, their norms, and the caption's length."""

    weights: list[dict[Ngram, float]]
    norms: list[float]
    length: int


class Cider:
    """Scores captions against the references of a fixed set of images.

    Document frequency is a property of that set: a score belongs to the images it was computed with, and shards must
    not be scored apart. With a single image every score is 0.

    >>> cider = Cider({"1": ["a red circle on a wall"], "2": ["two dogs run in the snow"]})
    >>> cider.score("1", "a red circle on a wall"), cider.score("2", "a red circle on a wall")
    (1000.0, 0.0)
    """

    def __init__(self, references: Mapping[str, Sequence[str]]) -> None:
        """Count in how many images each n-gram occurs.

        Args:
            references: image id -> its reference captions, for all evaluated images.

        Raises:
            ValueError: an image without references.
        """
        for image_id, captions in references.items():
            if not captions:
                raise ValueError(f"image {image_id!r} has no reference caption; CIDEr is undefined for it")
        counts = {image_id: [_ngrams(caption) for caption in captions] for image_id, captions in references.items()}
        self._frequency = Counter(ngram for captions in counts.values() for ngram in set().union(*captions))
        self._images = len(references)
        self._references = {i: [self._vector(caption) for caption in captions] for i, captions in counts.items()}

    def score(self, image_id: str, caption: str) -> float:
        """CIDEr-D x 100 of one caption; the mean over images is the corpus score.

        Args:
            image_id: one of the ids given to the constructor.
            caption: any text; one without words scores 0.

        Returns:
            A number from 0 to 1000.

        Raises:
            KeyError: an unknown image.
        """
        references = self._references[image_id]
        candidate = self._vector(_ngrams(caption))
        return SCALE * sum(_similarity(candidate, reference) for reference in references) / len(references)

    def _vector(self, counts: Counter[Ngram]) -> _Vector:
        weights: list[dict[Ngram, float]] = [{} for _ in range(LONGEST)]
        for ngram, count in counts.items():
            weights[len(ngram) - 1][ngram] = count * (log(self._images) - log(max(1, self._frequency[ngram])))
        norms = [sqrt(sum(weight**2 for weight in order.values())) for order in weights]
        return _Vector(weights, norms, sum(count for ngram, count in counts.items() if len(ngram) == 1))


@lru_cache(maxsize=1 << 14)  # runs on the same images share their references, and models repeat themselves
def _ngrams(caption: str) -> Counter[Ngram]:
    words = tokenize(caption)
    return Counter(tuple(words[i : i + n]) for n in range(1, LONGEST + 1) for i in range(len(words) - n + 1))


def _similarity(candidate: _Vector, reference: _Vector) -> float:
    """Mean over n of the clipped cosine, damped by the difference in length."""
    cosines = 0.0
    for ours, theirs, our_norm, their_norm in zip(
        candidate.weights, reference.weights, candidate.norms, reference.norms, strict=True
    ):
        if our_norm and their_norm:
            products = (min(weight, theirs.get(ngram, 0.0)) * theirs.get(ngram, 0.0) for ngram, weight in ours.items())
            cosines += sum(products) / (our_norm * their_norm)
    return cosines / LONGEST * exp(-((candidate.length - reference.length) ** 2) / (2 * SIGMA**2))
