"""Datasets that a command names by where they lie: ``FORMAT:PLACE``, or a TOML file with a row. Never imports torch.

A row says everything (see `bench.data.readers`); a place is looked at, and its format's `Reader` makes a row of it.
"""

import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

from bench import registry
from bench.data.reader import Reader
from bench.data.readers import reader, reader_of
from bench.data.settings import NAME, Setting, can_be_path, check, check_whole, from_texts
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
    return ":" in text or text.partition("?")[0].endswith(".toml")


def parse(text: str, data_root: Path | None, defaults: Mapping[str, Any]) -> Place:
    """The dataset that a spec names.

    Args:
        text: ``vqa:FOLDER``, ``karpathy:FOLDER``, ``webdataset:FOLDER``, ``imagefolder:FOLDER``,
            ``parquet:FILE?question=COLUMN&answers=COLUMN``, ``hf:OWNER/NAME?split=validation``, the place of a
            plugin's format, or a ``.toml`` file that holds one row. After
            "?" any key of a row may follow, and name=NAME for what tables call it.
        data_root: what relative places are relative to; by default the working folder.
        defaults: keys that the suite gives new datasets (prompts, lengths), where the format takes them.

    Raises:
        UsageError: an unknown format, a place that is missing or does not show what is what, a file that is not TOML.
    """
    root = data_root or Path()
    beginning, _, query = text.partition("?")
    if not can_be_path(beginning):
        raise UsageError(f"{text[:60]!r} can be no place of a dataset; write FORMAT:PLACE")
    if beginning.endswith(".toml"):
        return _from_file(root / beginning if (root / beginning).is_file() else Path(beginning), query, defaults)
    kind, _, place = beginning.partition(":")
    chosen = reader(kind, "format of a dataset")
    if chosen.find is None:
        raise UsageError(f"format {kind!r} cannot be named by a place; write a .toml file with the dataset's row")
    base = Path(place) if (root / place).is_dir() else Path(place).parent if (root / place).is_file() else Path()
    given = _given(query, chosen, base, text)
    path = (root / place).resolve() if chosen.reads_files and (root / place).exists() else None
    name = given.pop("name", None) or _name(path, place)
    found = chosen.find(root, Path(place), given)
    row = {"format": kind, "selection": SELECTION, **_fitting(chosen, defaults), **found, **given}
    return Place(name, row, root, _joined(f"{kind}:{place if path is None else path}", query))


def told_apart(texts: Sequence[str], data_root: Path | None) -> list[str]:
    """Names and specs of datasets, each place once; to specs whose datasets have one name another name is added.

    Args:
        texts: what a command says: names of a suite's datasets, and specs.
        data_root: as of `parse`.

    Returns:
        The same, with ``name=PARENT-NAME`` behind the "?" of places that are called alike.

    Raises:
        UsageError: as of `parse`; or two names cannot be told apart.
    """
    places = {text: parse(text, data_root, {}) for text in texts if is_spec(text)}
    firsts = {place.where: text for text, place in reversed(places.items())}  # of several specs of one place
    kept = [text for text in dict.fromkeys(texts) if text not in places or text in firsts.values()]
    alike = Counter(place.name for text, place in places.items() if text in kept)
    twice = {text: place for text, place in places.items() if alike[place.name] > 1}
    named = [_with_parent(text, twice[text]) if text in twice else text for text in kept]
    _refuse_alike({text: parse(text, data_root, {}).name for text in named if is_spec(text)})
    return named


def _refuse_alike(names: Mapping[str, str]) -> None:
    for name, count in Counter(names.values()).items():
        if count > 1:
            alike = " and ".join(text for text, its in names.items() if its == name)
            raise UsageError(f"{alike} are both called {name!r}; give one another name: ...?name=NAME")


def _name(path: Path | None, place: str) -> str:
    """A short name: that of the folder, of the file without its type, or of what is no path."""
    if path is None:
        return place.replace("/", "-")
    return path.stem if path.is_file() else path.name


def _with_parent(text: str, place: Place) -> str:
    """The spec with the name of its folder's parent before its own, if it lies in one and was given no name."""
    beginning, _, query = text.partition("?")
    path = Path(place.where.partition("?")[0].partition(":")[2] or place.where)
    if "name" in parse_qs(query) or not path.is_absolute():
        return text
    name = f"name={quote(f'{path.parent.name}-{place.name}')}"
    return _joined(beginning, f"{query}&{name}" if query else name)


def _joined(beginning: str, query: str) -> str:
    return f"{beginning}?{query}" if query else beginning


def _given(query: str, chosen: Reader, base: Path, text: str) -> dict[str, Any]:
    """The settings after "?"; paths lie in ``base``, the dataset's folder or that of its file."""
    given = from_texts(_split(query, text), {"name": Setting(NAME), **chosen.settings}, repr(text))
    inside = {key: str(base / str(path)) for key, path in chosen.paths(given).items()}
    return {**given, **inside}


def _split(query: str, text: str) -> Mapping[str, Sequence[str]]:
    try:
        return parse_qs(query, keep_blank_values=True, strict_parsing=True) if query else {}
    except ValueError:
        raise UsageError(f'{text!r}: what follows the "?" must be KEY=VALUE, several joined by "&"') from None


def _fitting(chosen: Reader, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Those defaults that a format's reader takes."""
    return {key: value for key, value in defaults.items() if key in chosen.settings}


def _from_file(path: Path, query: str, defaults: Mapping[str, Any]) -> Place:
    try:
        row = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"no such file: {path}; give a .toml file that holds a dataset's row") from None
    except (ValueError, OSError, RecursionError) as error:
        raise UsageError(f"{path} is not TOML: {error or 'it is nested too deeply'}") from None
    chosen = reader_of(str(path), row)
    given = _given(query, chosen, Path(), f"{path}?{query}")
    row = {"name": path.stem, "selection": SELECTION, **_fitting(chosen, defaults), **row, **given}
    settings = {key: value for key, value in row.items() if key != "format"}
    check(settings, {"name": Setting(NAME), **chosen.settings}, str(path))
    check_whole(settings, chosen.settings, str(path))
    return Place(row.pop("name"), row, path.parent, _joined(str(path.resolve()), query))
