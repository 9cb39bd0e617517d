"""Reading a dataset by its row: its format's `Reader`, found by name, and what every row may say beside."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import registry
from bench.data.files import existing_folder
from bench.data.reader import Reader
from bench.data.settings import OF_EVERY_ROW, check, check_whole
from bench.errors import UsageError

if TYPE_CHECKING:
    from tasks.base import Dataset

GROUP = "bench.readers"
_FIELDS = ("native_size", "broken_below", "scoring")  # keys of every row that are fields of `Dataset`


def reader(format_name: str, what: str = "dataset format") -> Reader:
    """The reader of a format: built in, or from a plugin in the entry point group "bench.readers".

    Args:
        format_name: e.g. "vqa".
        what: what names it, for messages.

    Raises:
        UsageError: an unknown format, or a plugin that is no reader.
    """
    if format_name not in registry.names(GROUP):
        raise registry.unknown(what, format_name, registry.names(GROUP))
    found = registry.resolve(GROUP, format_name)
    if not isinstance(found, Reader):
        raise UsageError(
            f"the plugin format {format_name!r} is a {type(found).__name__}, not a bench.data.reader.Reader"
        )
    return found


def reader_of(name: str, row: Mapping[str, Any]) -> Reader:
    """The reader of a dataset's row.

    Raises:
        UsageError: the row names no format, or one that is not known.
    """
    if not isinstance(row.get("format"), str):
        raise UsageError(f"dataset {name!r} does not say format = ...; known: {', '.join(registry.names(GROUP))}")
    return reader(row["format"], f"format of dataset {name!r}")


def load(name: str, row: Mapping[str, Any], root: Path) -> "Dataset":
    """Read a dataset from files, its samples in the order of the file.

    Args:
        name: of the dataset.
        row: ``format``, and the settings of that format; paths are relative to ``root``. Where a file goes by several
            names a list of them is given, and the first that is there counts.
        root: the folder under which datasets lie.

    Raises:
        UsageError: an unknown format or key, or a file that is missing, damaged or contradicts itself.
    """
    chosen = reader_of(name, row)
    given = {key: value for key, value in row.items() if key != "format"}
    check(given, chosen.settings, f"dataset {name!r}")
    check_whole(given, chosen.settings, f"dataset {name!r}, format {row['format']!r},")
    existing_folder(root, f"the data root, in which dataset {name!r} should lie")
    settings = {key: value for key, value in chosen.resolved(given, root).items() if key not in OF_EVERY_ROW}
    dataset = chosen.read(name, root, **settings)
    return replace(dataset, **{key: given[key] for key in _FIELDS if key in given})


def load_embedded(name: str, row: Mapping[str, Any], count: int) -> "Dataset":
    """The first ``count`` samples of a dataset that needs no files: its row names a reader that makes it.

    Raises:
        UsageError: its row names none.
    """
    if "embedded" not in row:
        raise UsageError(f"dataset {name!r} is read from files: give --data-root DIR")
    return reader(row["embedded"], f"embedded format of dataset {name!r}").read(name, Path(), dataset=name, size=count)
