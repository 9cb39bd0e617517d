"""Which samples of a dataset a run scores."""

from dataclasses import replace

import numpy as np

from bench.errors import UsageError
from tasks.base import Dataset

FIRST = "first"
_SEED = "seed-"


def select(dataset: Dataset, selection: str, count: int) -> Dataset:
    """The chosen samples, in the order chosen; a smaller count gives the beginning of a larger one's.

    Args:
        dataset: all samples.
        selection: "first", or "seed-N" for what ``numpy.random.seed(N)`` and ``numpy.random.choice`` without
            replacement draw, as the paper's released code does with N = 42.
        count: how many.

    Raises:
        UsageError: an unknown selection, or too few samples.
    """
    if len(dataset.samples) < count:
        raise UsageError(
            f"{dataset.name} has {len(dataset.samples)} samples, {count} are asked for; "
            f"use --limit {len(dataset.samples)}"
        )
    if selection == FIRST:
        return replace(dataset, samples=dataset.samples[:count])
    order = np.random.RandomState(_seed(dataset.name, selection)).permutation(len(dataset.samples))
    return replace(dataset, samples=tuple(dataset.samples[i] for i in order[:count]))


def _seed(name: str, selection: str) -> int:
    text = selection.removeprefix(_SEED)
    if not selection.startswith(_SEED) or not text.isdecimal():
        raise UsageError(f"dataset {name!r}: selection {selection!r} is neither 'first' nor 'seed-N'; fix its row")
    return int(text)
