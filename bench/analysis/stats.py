"""From records to numbers with intervals. NumPy only; all intervals are at 95 %.

Scores are per sample, on the metric's published scale (percent, or CIDEr x 100). Samples that share a
group (an image) are not independent, so everything resamples groups, never samples.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import comb, fsum, sqrt
from typing import Literal

import numpy as np

Scores = Mapping[str, float]  # sample id -> score
Groups = Mapping[str, str]  # sample id -> group
Alternative = Literal["two-sided", "less", "greater"]

Z95 = 1.959963984540054  # the normal distribution's 97.5 % quantile
TAIL = 0.025  # on either side of a 95 % interval
RESAMPLES = 2_000
BLOCK = 1_000_000  # cells of a matrix of resampling weights: 8 MB
KEPT = 6_000_000  # cells that are kept for the next interval of the same shape
LATTICE = 100_000  # finest lattice of the sign-flip test


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` samples with its 95 % interval, in the scores' units."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Paired:
    """The mean of `a - b` over the `n` samples scored in both, with its 95 % interval.

    Attributes:
        difference: Mean of a - b, in the scores' units.
        low: Lower end of the interval.
        high: Upper end of the interval.
        p: The test's p-value, for the alternative asked for.
        n: Number of samples in both.
        flipped: The samples whose scores differ, sorted.
        test: The test behind p, in words.
    """

    difference: float
    low: float
    high: float
    p: float
    n: int
    flipped: tuple[str, ...]
    test: str

    def in_words(self, p: float | None = None) -> str:
        """Such as "+4.0 [1.2, 6.9], p = 0.0031, n = 500"; with another p if it was corrected."""
        p = self.p if p is None else p
        return f"{self.difference:+.1f} [{self.low:.1f}, {self.high:.1f}], {p_label(p)}, n = {self.n}"


def p_label(p: float) -> str:
    """A p-value to the digits that matter."""
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.4f}" if p < 0.1 else f"p = {p:.2f}"


def wilson(successes: float, n: int) -> tuple[float, float]:
    """Score interval of a proportion, in [0, 1] (Wilson 1927, JASA 22:209-212).

    Raises:
        ValueError: If `n` is 0.
    """
    if n < 1:
        raise ValueError("no samples: there is no proportion")
    p = successes / n
    centre = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 * sqrt(p * (1 - p) / n + Z95**2 / (4 * n**2)) / (1 + Z95**2 / n)
    return min(max(0.0, centre - half), p), max(min(1.0, centre + half), p)


def clopper_pearson(successes: int, n: int) -> tuple[float, float]:
    """Exact interval of a proportion, in [0, 1] (Clopper & Pearson 1934, Biometrika 26:404-413).

    >>> clopper_pearson(0, 100)[1] < 0.0363
    True

    Raises:
        ValueError: If `n` is 0.
    """
    if n < 1:
        raise ValueError("no samples: there is no proportion")

    def at_most(k: int, p: float) -> float:
        return fsum(comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1))

    def solve(k: int, chance: float) -> float:
        """The proportion at which at most k successes have this chance, which falls with the proportion."""
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if at_most(k, middle) > chance else (low, middle)
        return high

    low = 0.0 if successes == 0 else solve(successes - 1, 1 - TAIL)
    return low, 1.0 if successes == n else solve(successes, TAIL)


def interval(scores: Scores, groups: Groups, seed: int = 0, *, ceiling: float | None = 100.0) -> Estimate:
    """The mean score and its interval.

    Wilson's for right-or-wrong scores of independent samples; otherwise a percentile bootstrap over groups
    (Efron & Tibshirani 1993, ch. 13). Where every resample is alike, as for 0 of 200, the bootstrap would
    claim certainty; a bounded metric then has Wilson's interval with one trial a group.

    Args:
        scores: Sample id -> score.
        groups: Sample id -> group.
        seed: Seed of the resampling.
        ceiling: The metric's upper bound, its lower being 0; None if unbounded.

    Raises:
        ValueError: If there are no scores.
    """
    return average_interval([(scores, groups)], seed, ceiling=ceiling)


def average_interval(
    strata: Sequence[tuple[Scores, Groups]], seed: int = 0, *, ceiling: float | None = 100.0
) -> Estimate:
    """The plain mean of several datasets' mean scores, each dataset resampled by itself; see `interval`.

    `n` is the number of samples in all of them.

    Raises:
        ValueError: If there are no datasets, or one has no scores.
    """
    if not strata or not all(scores for scores, _ in strata):
        raise ValueError("nothing was measured: there are no scores to average")
    value = float(np.mean([_mean(scores) for scores, _ in strata]))
    n = sum(len(scores) for scores, _ in strata)
    if ceiling is not None and len(strata) == 1 and _independent_and_binary(*strata[0], ceiling):
        return _wilson_estimate(value, n, n, ceiling)
    low, high = _bootstrap(strata, seed)
    if ceiling is not None and high - low < 1e-9:
        trials = sum(len({groups[sample] for sample in scores}) for scores, groups in strata)
        return _wilson_estimate(value, n, trials, ceiling)
    return Estimate(value, min(low, value), max(high, value), n)


def ratio_interval(parts: Mapping[str, tuple[float, float]], groups: Groups, seed: int = 0) -> Estimate | None:
    """A share in percent, 100 sum(numerators) / sum(denominators), with a bootstrap interval over groups.

    Resamples whose denominators sum to 0 are left out. Where all others are alike, Wilson's interval with one trial per
    group that has a denominator.

    Args:
        parts: Sample id -> numerator and denominator, such as (1, 1) for a "yes" that is right and (0, 0) for a "no",
            where the share of right ones among the "yes" is asked for.
        groups: Sample id -> group.
        seed: Seed of the resampling.

    Returns:
        The estimate, its `n` the number of samples; None if all denominators are 0.
    """
    over = {sample: part[0] for sample, part in parts.items()}
    under = {sample: part[1] for sample, part in parts.items()}
    if not (total := fsum(under.values())):
        return None
    value = 100 * fsum(over.values()) / total
    tops, bottoms = _group_sums(over, groups)[0], _group_sums(under, groups)[0]
    size = len(tops)
    kept = RESAMPLES * size <= KEPT
    drawn = _kept_weights(seed, (size,)) if kept else _weights(seed, (size,))
    sums = [(weights @ tops, weights @ bottoms) for _, _, weights in drawn]
    numerators, denominators = (np.concatenate(column) for column in zip(*sums, strict=True))
    shares = 100 * numerators[denominators > 0] / denominators[denominators > 0]
    low, high = map(float, np.percentile(shares, [2.5, 97.5]))
    if high - low < 1e-9:
        return _wilson_estimate(value, len(parts), int((bottoms > 0).sum()), 100.0)
    return Estimate(value, min(low, value), max(high, value), len(parts))


def paired(
    a: Scores,
    b: Scores,
    groups: Groups,
    seed: int = 0,
    *,
    alternative: Alternative = "two-sided",
    ceiling: float | None = None,
) -> Paired:
    """Compares two sets of scores on the samples that are in both.

    The exact McNemar test (McNemar 1947) where all scores are 0 or 100 and no group repeats; otherwise the
    exact permutation test that flips the sign of each group's summed difference. The interval is a bootstrap
    over groups; where all differ alike, as when none flipped, that would claim certainty, and a bounded metric
    has the width of Wilson's interval with one trial a group.

    Args:
        a: Sample id -> score.
        b: Sample id -> score; the difference is `a - b`.
        groups: Sample id -> group.
        seed: Seed of the interval's resampling; the p-value is exact.
        alternative: "less" asks for evidence that a < b, "greater" that a > b.
        ceiling: The metric's upper bound, its lower being 0; None if unbounded. Right-or-wrong scores have 100.

    Raises:
        ValueError: If no sample is in both.
    """
    shared = sorted(a.keys() & b.keys())
    if not shared:
        raise ValueError("the two share no sample: there is nothing to compare")
    differences = {sample: a[sample] - b[sample] for sample in shared}
    binary = {a[s] for s in shared} | {b[s] for s in shared} <= {0.0, 100.0}
    value = _mean(differences)
    alike = len(set(differences.values())) == 1  # every resample would have the same mean
    low, high = (value, value) if alike else _bootstrap([(differences, groups)], seed)
    trials = len({groups[sample] for sample in shared})
    bound = 100.0 if binary else ceiling
    if bound is not None and high - low < 1e-9:
        width = bound * wilson(0, trials)[1]
        low, high = max(value - width, -bound), min(value + width, bound)
    if binary and trials == len(shared):
        gains = sum(difference > 0 for difference in differences.values())
        p = mcnemar(gains, sum(difference < 0 for difference in differences.values()), alternative)
        test = "exact McNemar test"
    else:
        p = sign_flip(_group_sums(differences, groups)[0], alternative)
        test = "exact sign-flip test by image"
    flipped = tuple(sample for sample in shared if differences[sample] != 0)
    return Paired(value, min(low, value), max(high, value), p, len(shared), flipped, test)


def mcnemar(gains: int, losses: int, alternative: Alternative = "two-sided") -> float:
    """Exact p-value that `gains` of the `gains + losses` samples that flipped did so in a's favour."""
    n = gains + losses

    def at_most(k: int) -> float:
        return float(sum(comb(n, i) for i in range(k + 1)) / 2**n)

    if alternative == "less":
        return at_most(gains)
    if alternative == "greater":
        return at_most(losses)
    return min(1.0, 2 * at_most(min(gains, losses)))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted for being so many (Holm 1979), in the order given."""
    adjusted = [1.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running = max(running, (len(p_values) - rank) * p_values[index])
        adjusted[index] = min(1.0, running)
    return adjusted


def _mean(scores: Scores) -> float:
    return float(fsum(scores.values()) / len(scores))  # exact, so that the order of samples does not show


def _independent_and_binary(scores: Scores, groups: Groups, ceiling: float) -> bool:
    return set(scores.values()) <= {0.0, ceiling} and len({groups[s] for s in scores}) == len(scores)


def _wilson_estimate(value: float, n: int, trials: int, ceiling: float) -> Estimate:
    low, high = wilson(trials * value / ceiling, trials)
    return Estimate(value, min(low * ceiling, value), max(high * ceiling, value), n)


def _group_sums(scores: Scores, groups: Groups) -> tuple[np.ndarray, np.ndarray]:
    """The sum of the scores of each group, and its number of samples, both (G,); order: first seen, by id."""
    samples = sorted(scores)
    _, index = np.unique([groups[sample] for sample in samples], return_inverse=True)
    return np.bincount(index, weights=[scores[sample] for sample in samples]), np.bincount(index)


def _bootstrap(strata: Sequence[tuple[Scores, Groups]], seed: int) -> tuple[float, float]:
    """Percentile interval of the mean of the strata's means, groups resampled within each stratum."""
    sums = [_group_sums(scores, groups) for scores, groups in strata]
    sizes = tuple(len(total) for total, _ in sums)
    kept = RESAMPLES * sum(sizes) <= KEPT
    means = np.zeros(RESAMPLES)
    for stratum, first, weights in _kept_weights(seed, sizes) if kept else _weights(seed, sizes):
        totals, counts = sums[stratum]
        means[first : first + len(weights)] += (weights @ totals) / (weights @ counts) / len(sums)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _weights(seed: int, sizes: tuple[int, ...]) -> Iterator[tuple[int, int, np.ndarray]]:
    """How often each group of each stratum is drawn in each resample.

    Yields:
        Index of the stratum, index of the first resample, and the weights (resamples, groups).
    """
    rng = np.random.default_rng(seed)
    for stratum, size in enumerate(sizes):
        rows = max(1, min(RESAMPLES, BLOCK // size))
        for first in range(0, RESAMPLES, rows):
            count = min(rows, RESAMPLES - first)
            draws = rng.integers(size, size=(count, size)) + size * np.arange(count)[:, None]
            yield stratum, first, np.bincount(draws.ravel(), minlength=count * size).reshape(count, size).astype(float)


@lru_cache(maxsize=8)
def _kept_weights(seed: int, sizes: tuple[int, ...]) -> tuple[tuple[int, int, np.ndarray], ...]:
    """Drawing takes ten times as long as using them, and the runs of a suite are alike in shape."""
    return tuple(_weights(seed, sizes))


def sign_flip(differences: np.ndarray, alternative: Alternative = "two-sided") -> float:
    """Exact p-value of the sum of differences (G,) if each sign were a coin's (Fisher 1935, section 21).

    The distribution of the sum over all 2^G sign vectors is convolved difference by difference (Pagano &
    Tritchler 1983, JASA 78:435-440), after rounding them to a lattice of decimal width. Rounding is symmetric
    in sign, so the test of the rounded differences is exact too; multiples of the width are not changed at all.
    """
    observed = differences[differences != 0]
    if not len(observed):
        return 1.0
    steps = _on_lattice(observed)
    sizes = np.sort(np.abs(steps))
    chances = np.ones(1)  # chances[k]: that the positive ones sum to k
    for size in sizes[sizes > 0].tolist():
        longer = np.zeros(len(chances) + size)
        longer[: len(chances)] = chances
        longer[size:] += chances
        chances = longer / 2
    positive = int(steps[steps > 0].sum())
    at_most, at_least = float(chances[: positive + 1].sum()), float(chances[positive:].sum())
    p = {"less": at_most, "greater": at_least, "two-sided": 2 * min(at_most, at_least)}[alternative]
    return min(1.0, p)


def _on_lattice(differences: np.ndarray) -> np.ndarray:
    """The differences (G,) in whole steps: the least power of ten that makes their sum fit in `LATTICE` steps."""
    total = float(np.abs(differences).sum())
    width = 10.0 ** np.ceil(np.log10(total / LATTICE))
    steps: np.ndarray = np.rint(differences / width).astype(np.int64)
    return steps
