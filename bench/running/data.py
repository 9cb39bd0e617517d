"""The samples that a run scores."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.config import RunConfig, load_suite
from bench.data.readers import load as read_dataset
from bench.data.selection import FIRST, select
from bench.errors import UsageError
from bench.mini import embedded
from tasks.base import Dataset


def load_dataset(config: RunConfig) -> Dataset:
    """The samples a run scores: from files, or embedded in the package.

    Of a dataset that the suite does not know, all samples are taken if there are fewer than the suite's number.

    Raises:
        UsageError: it is not known where the files lie, or they are not what they should be.
    """
    if (root := root_of(config)) is None:
        return embedded.load(config.dataset, config.n_samples)
    row = row_of(config)
    dataset = read_dataset(config.dataset, row, root)
    count = config.n_samples if config.place is None else min(config.n_samples, len(dataset.samples))
    return select(dataset, str(row.get("selection", FIRST)), count)


def row_of(config: RunConfig) -> Mapping[str, Any]:
    """What is said of a dataset that is read from files; nothing of an embedded one."""
    if config.place is not None:
        return config.place.row
    if root_of(config) is None:
        return {}
    rows = load_suite(config.suite).datasets
    if config.dataset not in rows:
        raise UsageError(f"suite {config.suite!r} does not say where {config.dataset!r} lies under a data root")
    return rows[config.dataset]


def root_of(config: RunConfig) -> Path | None:
    """The folder under which a dataset's files lie; None for an embedded one.

    That is --data-root, or the folder of a user's own suite file.
    """
    suite = load_suite(config.suite)
    if config.root is not None or config.dataset in embedded.NAMES:
        return config.root
    if suite.folder is None and config.dataset in suite.datasets:
        raise UsageError(
            f"dataset {config.dataset!r} is read from files: give --data-root DIR; `bench data check --dataset "
            f"{config.dataset} --suite {config.suite} --data-root DIR` says what must lie there"
        )
    return suite.folder
