"""Data sets that need no files: those that the package draws itself."""

from bench import registry
from bench.mini.data import NAMES, build
from tasks.base import Dataset

__all__ = ["NAMES", "load"]


def load(name: str, samples: int) -> Dataset:
    """The first ``samples`` samples of an embedded data set.

    Raises:
        UsageError: there is no such data set in the package; a data root is needed.
    """
    if name not in NAMES:
        raise registry.unknown("embedded data set", name, NAMES)
    return build(name, samples)
