"""The files that datasets need, and where those are published. Never imports torch."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path


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


@cache
def _sources() -> dict[str, dict[str, str]]:
    return tomllib.loads(resources.files("bench.data").joinpath("sources.toml").read_text(encoding="utf-8"))


def needed_at(place: str | Sequence[str], root: Path) -> Needed:
    """A file or folder with what `sources.toml` knows of it.

    Args:
        place: relative to ``root``; several if it goes by several names, the official one first.
        root: the data root.
    """
    names = [place] if isinstance(place, str) else place
    source = _sources().get(names[0], {})
    if "holds" in source:
        return needed_at(source["holds"], root)
    here = first_present(names, root)
    return Needed(here or names[0], here is not None, **source)


def first_present(names: Sequence[str], root: Path) -> str | None:
    """The first of these that lies under ``root``."""
    return next((name for name in names if (root / name).exists()), None)
