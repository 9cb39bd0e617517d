"""Data sets that need no files: those that the package draws itself."""

from bench import registry
from bench.mini import data
from tasks.base import Dataset


def load(name: str, samples: int) -> Dataset:
    """The first ``samples`` samples of an embedded data set.

    Raises:
        UsageError: there is no such data set in the package; a data root is needed.
    """
    if name not in data.NAMES:
        raise registry.unknown("embedded data set", name, data.NAMES)
    return data.build(name, samples)
