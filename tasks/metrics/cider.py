"""CIDEr-D (Vedantam et al. 2015, arXiv 1411.5726), image by image."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from tasks.metrics.ptb import tokenize

ORDERS = (1, 2, 3, 4)
SIGMA = 6.0  # of the Gaussian penalty on a difference in length
Ngrams = Counter[tuple[str, ...]]


class Cider:
    """Scores captions against the references of a fixed set of images.

    Document frequencies come from these references alone, so the corpus score is the mean of the images' scores.

    Args:
        references: image id -> its reference captions.

    Raises:
        ValueError: an image without references, or no image at all.
    """

    def __init__(self, references: Mapping[str, Sequence[str]]) -> None:
        if lacking := [key for key, texts in references.items() if not texts]:
            raise ValueError(f"CIDEr needs references; image {lacking[0]!r} has none")
        self._counts = {key: [_ngrams(text) for text in texts] for key, texts in references.items()}
        self._frequency: Ngrams = Counter(
            ngram for counted in self._counts.values() for ngram in {n for counts in counted for n in counts}
        )
        self._log_images = math.log(max(1, len(references)))

    def score(self, image_id: str, caption: str) -> float:
        """CIDEr-D x 100 of one caption, on the scale of published tables.

        Raises:
            KeyError: the image is not one of those given.
        """
        said = _ngrams(caption)
        total = sum(self._similarity(said, counts) for counts in self._counts[image_id])
        return 100.0 * 10.0 * total / len(self._counts[image_id])

    def _similarity(self, said: Ngrams, reference: Ngrams) -> float:
        penalty = math.exp(-((_length(said) - _length(reference)) ** 2) / (2 * SIGMA**2))
        return penalty * sum(self._cosine(said, reference, order) for order in ORDERS) / len(ORDERS)

    def _cosine(self, said: Ngrams, reference: Ngrams, order: int) -> float:
        """Clipped cosine of the two texts' weighted n-gram vectors of one order."""
        ours, theirs = (self._weighted(counts, order) for counts in (said, reference))
        norm = math.sqrt(sum(w * w for w in ours.values())) * math.sqrt(sum(w * w for w in theirs.values()))
        if norm == 0:
            return 0.0
        return sum(min(weight, theirs[n]) * theirs[n] for n, weight in ours.items() if n in theirs) / norm

    def _weighted(self, counts: Ngrams, order: int) -> dict[tuple[str, ...], float]:
        return {
            ngram: count * (self._log_images - math.log(max(1, self._frequency[ngram])))
            for ngram, count in counts.items()
            if len(ngram) == order
        }


def _ngrams(text: str) -> Ngrams:
    words = tokenize(text)
    return Counter(tuple(words[i : i + n]) for n in ORDERS for i in range(len(words) - n + 1))


def _length(counts: Ngrams) -> int:
    """The released code measures length in bigrams."""
    return sum(count for ngram, count in counts.items() if len(ngram) == 2)
