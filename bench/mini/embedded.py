"""Datasets that need no files: those that the package draws itself."""

from bench import registry
from bench.mini.data import NAMES, build
from tasks.base import Dataset

__all__ = ["NAMES", "load"]


def load(name: str, samples: int) -> Dataset:
    """The first ``samples`` samples of an embedded dataset.

    Raises:
        UsageError: there is no such dataset in the package; a data root is needed.
    """
    if name not in NAMES:
        raise registry.unknown("embedded dataset", name, NAMES)
    return build(name, samples)
