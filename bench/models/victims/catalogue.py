"""Victims by name: a table of names and places, data only (never imports torch)."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True)
class VictimRow:
    """A name for a victim.

    Attributes:
        place: folder, file, hub id or address; ``package:...`` for what ships with this package.
    """

    place: str
    about: str


@cache
def rows() -> Mapping[str, VictimRow]:
    """The named victims."""
    raw = tomllib.loads(resources.files("bench.models.victims").joinpath("catalogue.toml").read_text())
    return {name: VictimRow(**row) for name, row in raw.items()}


def place_of(name_or_place: str) -> str:
    """The place that a name stands for; a place stands for itself."""
    row = rows().get(name_or_place)
    return name_or_place if row is None else row.place
