"""The samples that a run scores."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bench.config import RunConfig, load_suite
from bench.data.readers import load as read_dataset
from bench.data.readers import load_embedded
from bench.data.selection import FIRST, select
from bench.errors import UsageError
from tasks.base import Dataset


def load_dataset(config: RunConfig) -> Dataset:
    """The samples a run scores: from files, or embedded in the package.

    Of a dataset that the suite does not know, all samples are taken if there are fewer than the suite's number.

    Raises:
        UsageError: it is not known where the files lie, or they are not what they should be.
    """
    row = row_of(config)
    if (root := root_of(config)) is None:
        return load_embedded(config.dataset, row, config.n_samples)
    dataset = read_dataset(config.dataset, row, root)
    count = config.n_samples if config.place is None else min(config.n_samples, len(dataset.samples))
    for note in (*dataset.notes, *_left_out(config, len(dataset.samples))):
        tqdm.write(f"{config.dataset}: {note}", file=sys.stderr)
    return select(dataset, selection_of(config), count)


def _left_out(config: RunConfig, present: int) -> list[str]:
    """That the suite's number of samples leaves some of a place out; --limit says so itself."""
    if config.place is None or config.limit is not None or config.samples >= present:
        return []
    return [f'{config.samples} of {present} samples are taken, as the suite says; add samples={present} after the "?"']


def selection_of(config: RunConfig) -> str:
    """How the samples are drawn; an embedded dataset's are the first."""
    return FIRST if root_of(config) is None else str(row_of(config).get("selection", FIRST))


def row_of(config: RunConfig) -> Mapping[str, Any]:
    """What is said of a dataset."""
    rows = load_suite(config.suite).datasets
    if config.place is not None:
        return config.place.row
    if config.dataset not in rows:
        raise UsageError(f"suite {config.suite!r} does not say where {config.dataset!r} lies under a data root")
    return rows[config.dataset]


def root_of(config: RunConfig) -> Path | None:
    """The folder under which a dataset's files lie; None for one that is embedded in the package.

    That is --data-root, or the folder of a user's own suite file.
    """
    if config.root is not None or "embedded" in row_of(config):
        return config.root
    if (folder := load_suite(config.suite).folder) is None:
        raise UsageError(
            f"dataset {config.dataset!r} is read from files: give --data-root DIR; `bench data check --dataset "
            f"{config.dataset} --suite {config.suite} --data-root DIR` says what must lie there"
        )
    return folder
