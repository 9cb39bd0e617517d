"""Datasets that a command names by where they lie: ``FORMAT:PLACE``, or a TOML file with a row. Never imports torch.

A row says everything (see `bench.data.readers`); a place is looked at, and its format's `Reader` makes a row of it.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from bench import registry
from bench.data.reader import Reader
from bench.data.readers import GROUP, reader, reader_of
from bench.data.settings import check, from_texts
from bench.errors import UsageError

SELECTION = "seed-42"  # the first images of a folder are often all of one class


@dataclass(frozen=True)
class Place:
    """A dataset that no suite knows.

    Attributes:
        name: short, for tables.
        row: as in a suite; its paths are relative to ``root``.
        root: the folder that they are relative to.
        where: what the command said, with the folder made absolute.
    """

    name: str
    row: Mapping[str, Any]
    root: Path
    where: str

    def suits(self, task: str) -> bool:
        """Whether a task can ask these samples; a third party's task is taken at its word."""
        return task not in registry.TASKS or task in reader_of(self.name, self.row).tasks(self.row)


def is_spec(text: str) -> bool:
    """Whether this names a place, not a dataset of a suite."""
    return ":" in text or text.endswith(".toml")


def parse(text: str, data_root: Path | None, defaults: Mapping[str, Any]) -> Place:
    """The dataset that a spec names.

    Args:
        text: ``vqa:FOLDER``, ``karpathy:FOLDER``, ``webdataset:FOLDER``, ``imagefolder:FOLDER``,
            ``parquet:FILE?question=COLUMN&answers=COLUMN``, ``hf:OWNER/NAME?split=validation``, the place of a
            plugin's format, or a ``.toml`` file that holds one row. After "?" any key of a row may follow.
        data_root: what relative places are relative to; by default the working folder.
        defaults: keys that the suite gives new datasets (prompts, lengths), where the format takes them.

    Raises:
        UsageError: an unknown format, a place that is missing or does not show what is what, a file that is not TOML.
    """
    root = data_root or Path()
    if text.endswith(".toml"):
        return _from_file(root / text if (root / text).is_file() else Path(text), defaults)
    kind, _, rest = text.partition(":")
    if kind not in registry.names(GROUP):
        raise registry.unknown("format of a dataset", kind, registry.names(GROUP))
    chosen = reader(kind)
    if chosen.find is None:
        raise UsageError(f"format {kind!r} cannot be named by a place; write a .toml file with the dataset's row")
    place, _, query = rest.partition("?")
    given = _given(query, chosen, root, place, text)
    found = chosen.find(root, Path(place), given)
    row = {"format": kind, "selection": SELECTION, **_fitting(chosen, defaults), **found, **given}
    if (root / place).exists():
        place = str((root / place).resolve())
        name = Path(place).with_suffix("").name
    else:
        name = place.replace("/", "-")
    return Place(name, row, root, f"{kind}:{place}" + (f"?{query}" if query else ""))


def _given(query: str, chosen: Reader, root: Path, place: str, text: str) -> dict[str, Any]:
    """The settings after "?"; paths lie in the dataset's folder, or beside its file."""
    given = from_texts(parse_qs(query, keep_blank_values=True), chosen.settings, repr(text))
    base = Path(place) if (root / place).is_dir() else Path(place).parent if (root / place).is_file() else Path()
    inside = {key: str(base / str(path)) for key, path in chosen.paths(given).items()}
    return {**given, **inside}


def _fitting(chosen: Reader, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Those defaults that a format's reader takes."""
    return {key: value for key, value in defaults.items() if key in chosen.settings}


def _from_file(path: Path, defaults: Mapping[str, Any]) -> Place:
    try:
        row = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"no such file: {path}; give a .toml file that holds a dataset's row") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from None
    name = str(row.pop("name", path.stem))
    chosen = reader_of(str(path), row)
    row = {"selection": SELECTION, **_fitting(chosen, defaults), **row}
    check({key: value for key, value in row.items() if key != "format"}, chosen.settings, str(path))
    return Place(name, row, path.parent, str(path.resolve()))
