"""Reading a dataset by its row: the format's function, and what every row may say beside."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import registry
from bench.data.captions import karpathy
from bench.data.columns import table
from bench.data.files import existing_folder
from bench.data.folders import imagefolder
from bench.data.questions import vqa
from bench.data.shards import webdataset
from bench.errors import UsageError
from tasks.base import Dataset

READERS: Mapping[str, Callable[..., Dataset]] = {
    "karpathy": karpathy,
    "vqa": vqa,
    "webdataset": webdataset,
    "imagefolder": imagefolder,
    "table": table,
}
PATHS = ("annotations", "questions", "references", "images", "folder", "source")  # keys that name files
FOR_THE_RUN = ("about", "samples", "selection")  # keys of a row that say nothing of how it is read
FOR_THE_TASK = ("native_size", "broken_below")  # keys of a row that are fields of `Dataset`


def load(name: str, row: Mapping[str, Any], root: Path) -> Dataset:
    """Read a dataset from files, its samples in the order of the file.

    Args:
        name: of the dataset.
        row: ``format``, and the keyword arguments of that format's reader; paths are relative to ``root``. Where a
            file goes by several names a list of them is given, and the first that is there counts.
        root: the folder under which datasets lie.

    Raises:
        UsageError: an unknown format or key, or a file that is missing, damaged or contradicts itself.
    """
    settings = {key: value for key, value in resolved(row, root).items() if key not in FOR_THE_RUN}
    format_name = str(settings.pop("format", ""))
    if format_name not in READERS:
        raise registry.unknown(f"format of dataset {name!r}", format_name, READERS)
    fields = {key: settings.pop(key) for key in FOR_THE_TASK if key in settings}
    reader = READERS[format_name]
    try:
        inspect.signature(reader).bind(name, root, **settings)
    except TypeError as error:
        raise UsageError(f"dataset {name!r}, format {format_name!r}: {error}; fix its row in the suite") from None
    existing_folder(root, f"the data root, in which dataset {name!r} should lie")
    return replace(reader(name, root, **settings), **fields)


def resolved(row: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """The row with one path where it has a list of names that a file goes by: one that is there, else the first."""
    chosen = dict(row)
    for key in PATHS:
        if isinstance(names := row.get(key), list):
            chosen[key] = next((name for name in names if (root / name).exists()), names[0])
    return chosen
