"""What files a dataset needs, which of them are there, and where the others are published."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

from bench.data.readers import PATHS, load
from bench.data.shards import CLASSNAMES
from bench.data.templates import TEMPLATES
from bench.errors import UsageError

_HUB = "https://huggingface.co/datasets/clip-benchmark"


@dataclass(frozen=True)
class Needed:
    """A file or folder that a dataset needs.

    Attributes:
        place: relative to the data root, by its official name.
        present: whether it is there, under this or another name that it goes by.
        page: where it is published, for people; empty where that is not known.
        url: what can be loaded without a form to fill in; None if nothing can.
    """

    place: str
    present: bool
    page: str = ""
    url: str | None = None


@dataclass(frozen=True)
class Presence:
    """A dataset's files: what is needed, and if all of it is there, what is wrong with it."""

    name: str
    needed: tuple[Needed, ...]
    samples: int = 0
    faults: tuple[str, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether a run could begin."""
        return not self.faults and all(one.present for one in self.needed)


def presence(name: str, row: Mapping[str, Any], root: Path) -> Presence:
    """Look for a dataset's files, and read it if they are all there.

    Args:
        name: of the dataset.
        row: as in a suite.
        root: the data root.
    """
    needed = tuple(files_needed(row, root))
    if not all(one.present for one in needed):
        return Presence(name, needed)
    try:
        samples = load(name, row, root).samples
    except UsageError as error:
        return Presence(name, needed, faults=(str(error),))
    files = {sample.image for sample in samples if isinstance(sample.image, Path)}
    absent = sorted(str(file) for file in files if not file.is_file())
    faults = (f"{len(absent)} of {len(files)} image files are missing, such as {absent[0]}",) if absent else ()
    return Presence(name, needed, len(samples), faults)


def files_needed(row: Mapping[str, Any], root: Path) -> list[Needed]:
    """Every file and folder that a row names; of a tar set also what its folder must hold."""
    if row.get("format") == "table" and not (root / str(row["source"])).exists():
        return []  # perhaps in the hub's cache: reading it tells
    found = [_needed(row[key], root) for key in PATHS if key in row]
    if row.get("format") != "webdataset":
        return found
    folder = str(row["folder"])
    names = [CLASSNAMES, *([] if "templates" in row else [TEMPLATES]), "test/nshards.txt"]
    counted = root / folder / "test" / "nshards.txt"
    count = counted.read_text(errors="replace").strip() if counted.is_file() else ""
    names += [f"test/{k}.tar" for k in range(int(count))] if count.isdecimal() else ["test/0.tar"]
    return [_of_shards(folder, name, root) for name in names]


@cache
def _sources() -> dict[str, dict[str, str]]:
    return tomllib.loads(resources.files("bench.data").joinpath("sources.toml").read_text(encoding="utf-8"))


def _needed(place: str | list[str], root: Path) -> Needed:
    names = place if isinstance(place, list) else [place]
    source = _sources().get(names[0], {})
    if "holds" in source:
        return _needed(source["holds"], root)
    here = next((name for name in names if (root / name).exists()), None)
    return Needed(here or names[0], here is not None, **source)


def _of_shards(folder: str, name: str, root: Path) -> Needed:
    place = f"{folder}/{name}"
    repository = PurePosixPath(folder).name
    if not repository.startswith("wds_") or folder != repository:
        return Needed(place, (root / place).exists())
    page = f"{_HUB}/{repository}"
    return Needed(place, (root / place).exists(), page, f"{page}/resolve/main/{name}")
