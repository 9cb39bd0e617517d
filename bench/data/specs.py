"""Datasets that a command names by where they lie: ``FORMAT:PLACE``, or a TOML file with a row. Never imports torch.

A row says everything (see `bench.data.readers`); a spec finds out what a folder holds.
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from bench import registry
from bench.errors import UsageError

SELECTION = "seed-42"  # the first images of a folder are often all of one class
_COLUMNS = ("id", "image", "image_id", "question", "answers", "captions", "label")
_FILES = ("annotations", "questions", "references", "images", "classnames")  # keys whose values lie in the folder
_BEGINNING = 1 << 16  # bytes; an image's entry in Karpathy's JSON takes one or two thousand
_IMAGE_TYPES = (".jpg", ".jpeg", ".png", ".webp")
_OF_TASK = {"vqa": ("vqa",), "karpathy": ("captioning", "stealth"), "webdataset": ("zeroshot",),
            "imagefolder": ("zeroshot",), "table": ("zeroshot", "captioning", "vqa")}  # fmt: skip


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
        formats = _OF_TASK.get(str(self.row.get("format")), ())
        if task == "stealth" or (task == "captioning" and "targets" in self.row):
            return task == "stealth" and "targets" in self.row and task in formats
        return task in formats or task not in {t for tasks in _OF_TASK.values() for t in tasks}


def is_spec(text: str) -> bool:
    """Whether this names a place, not a dataset of a suite."""
    return ":" in text or text.endswith(".toml")


def parse(text: str, data_root: Path | None, defaults: Mapping[str, Any]) -> Place:
    """The dataset that a spec names.

    Args:
        text: ``vqa:FOLDER``, ``karpathy:FOLDER``, ``webdataset:FOLDER``, ``imagefolder:FOLDER``,
            ``parquet:FILE?question=COLUMN&answers=COLUMN``, ``hf:OWNER/NAME?split=validation``, or a ``.toml`` file
            that holds one row. After "?" any key of a row may follow.
        data_root: what relative places are relative to; by default the working folder.
        defaults: keys that the suite gives new datasets (prompts, lengths), where the format takes them.

    Raises:
        UsageError: an unknown format, a place that is missing or does not show what is what, a file that is not TOML.
    """
    root = data_root or Path()
    if text.endswith(".toml"):
        return _from_file(root / text if (root / text).is_file() else Path(text), defaults)
    kind, _, rest = text.partition(":")
    if kind not in _FINDERS:
        raise registry.unknown("format of a dataset", kind, _FINDERS)
    place, _, query = rest.partition("?")
    settings = _settings(query, place)
    if kind == "hf":
        row, name = {"format": "table", "source": place}, place
    else:
        base = root / place
        if not base.exists():
            raise UsageError(f"no dataset at {base} ({text!r}); fix the path, or --data-root")
        row, name = _FINDERS[kind](base, Path(place), settings), base.resolve().with_suffix("").name
        place = str(base.resolve())
    row = {"selection": SELECTION, **_fitting(row["format"], defaults), **row, **settings}
    return Place(name.replace("/", "-"), row, root, f"{kind}:{place}" + (f"?{query}" if query else ""))


def _settings(query: str, place: str) -> dict[str, Any]:
    """The keys after "?": columns together, paths inside the dataset's folder."""
    given = dict(parse_qsl(query, keep_blank_values=True))
    columns = {role: given.pop(role) for role in _COLUMNS if role in given}
    settings: dict[str, Any] = {
        key: str(Path(place) / value) if key in _FILES and value != "imagenet" else value
        for key, value in given.items()
    }
    if "max_new_tokens" in settings:
        settings["max_new_tokens"] = _number(settings["max_new_tokens"])
    return settings | ({"columns": columns} if columns else {})


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"max_new_tokens must be a number from 1, got {text!r}")
    return int(text)


def _fitting(format_name: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Those defaults that a format's reader takes."""
    takes = {"vqa": ("max_new_tokens", "prompt_suffix"), "karpathy": ("max_new_tokens", "prompt"),
             "table": ("max_new_tokens", "prompt_suffix", "prompt")}  # fmt: skip
    return {key: value for key, value in defaults.items() if key in takes.get(format_name, ())}


def _from_file(path: Path, defaults: Mapping[str, Any]) -> Place:
    try:
        row = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"no such file: {path}; give a .toml file that holds a dataset's row") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from None
    name = str(row.pop("name", path.stem))
    if "format" not in row:
        raise UsageError(f"{path} does not say format = ...; known: {', '.join(_OF_TASK)}")
    row = {"selection": SELECTION, **_fitting(str(row["format"]), defaults), **row}
    return Place(name, row, path.parent, str(path.resolve()))


def _vqa(base: Path, place: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "format": "vqa",
        "questions": given.get("questions") or _one(base, place, "*questions*.json", "questions"),
        "annotations": given.get("annotations") or _one(base, place, "*annotations*.json", "annotations"),
        "images": given.get("images") or str(place / _image_folder(base)),
    }


def _karpathy(base: Path, place: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    pattern = "*karpathy*.json" if list(base.glob("*karpathy*.json")) else "dataset_*[!e].json"
    annotations = given.get("annotations") or _one(base, place, pattern, "annotations")
    images = given.get("images") or str(
        place / ("" if _names_folders(base, place, annotations) else _image_folder(base))
    )
    return {"format": "karpathy", "annotations": annotations, "images": images}


def _names_folders(base: Path, place: Path, annotations: str) -> bool:
    """Whether Karpathy's JSON says of each image in which folder it lies, as COCO's does and Flickr30k's does not."""
    path = base / Path(annotations).relative_to(place)
    try:
        with path.open("rb") as file:
            return b'"filepath"' in file.read(_BEGINNING)
    except OSError:
        return False  # the reader says what is wrong with the file


def _one(base: Path, place: Path, pattern: str, key: str) -> str:
    """The only file of a pattern."""
    found = sorted(path.name for path in base.glob(pattern))
    if len(found) != 1:
        what = f"{len(found)} files {pattern} ({', '.join(found)})" if found else f"no file {pattern}"
        raise UsageError(f"{base} holds {what}; say which: ...?{key}=FILE, or write a .toml file with the row")
    return str(place / found[0])


def _image_folder(base: Path) -> str:
    """The one folder in ``base`` that holds images; ``base`` itself if none does."""
    found = sorted(path.name for path in base.iterdir() if path.is_dir() and _holds_images(path))
    if len(found) > 1:
        raise UsageError(f"{base} holds several folders of images ({', '.join(found)}); say which: ...?images=FOLDER")
    return found[0] if found else ""


def _holds_images(folder: Path) -> bool:
    return any(path.suffix.lower() in _IMAGE_TYPES for path in folder.iterdir())


_FINDERS: Mapping[str, Callable[[Path, Path, Mapping[str, Any]], dict[str, Any]]] = {
    "vqa": _vqa,
    "karpathy": _karpathy,
    "webdataset": lambda base, place, given: {"format": "webdataset", "folder": str(place)},
    "imagefolder": lambda base, place, given: {"format": "imagefolder", "folder": str(place)},
    "parquet": lambda base, place, given: {"format": "table", "source": str(place)},
    "hf": lambda base, place, given: {"format": "table", "source": str(place)},
}
