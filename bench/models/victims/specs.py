"""What ``--vlm`` says: a victim's name or place, and what is chosen of it behind a "?" (never imports torch)."""

from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote

from bench.errors import UsageError
from bench.models.victims.catalogue import place_of
from bench.registry import options

_PLAIN = "/:=+,.@~ "  # characters that need no escape in a setting's value


class VictimSpec(NamedTuple):
    """A victim as a command names it.

    Attributes:
        name: a name of the catalogue, or a folder, file, hub id or address.
        settings: names and values.
    """

    name: str
    settings: Mapping[str, str]

    @property
    def identity(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        """The same for two ways of naming one victim."""
        return place_of(self.name), tuple(sorted(self.settings.items()))

    def __str__(self) -> str:
        pairs = (f"{quote(key, _PLAIN)}={quote(value, _PLAIN)}" for key, value in sorted(self.settings.items()))
        query = "&".join(pairs)
        return f"{self.name}?{query}" if query else self.name


def parse(text: str) -> VictimSpec:
    """The victim that ``NAME?setting=value&setting=value`` stands for, the notation of datasets' places.

    >>> parse("mini-openflamingo?shots=4&beams=3")
    VictimSpec(name='mini-openflamingo', settings={'shots': '4', 'beams': '3'})

    Raises:
        UsageError: what follows the "?" is no such list, or names a setting twice.
    """
    name, _, query = text.partition("?")
    if not name:
        raise UsageError(f'{text!r}: write NAME, or NAME?SETTING=VALUE, several settings joined by "&"')
    return VictimSpec(name, options(query, repr(name)))
