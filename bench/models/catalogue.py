"""The encoder catalogue: one row a checkpoint, data only (never imports torch)."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

PACKAGE = "package:"


@dataclass(frozen=True)
class EncoderRow:
    """One checkpoint: which open_clip model, and which image tower replaces the model's own."""

    name: str
    model: str
    pretrained: str | None = None
    visual: str | None = None
    licence: str = "unknown"
    about: str = ""


@cache
def _catalogue() -> dict[str, dict]:
    return tomllib.loads(resources.files("bench.models").joinpath("catalogue.toml").read_text())


def aliases() -> dict[str, str]:
    """Short names: alias -> row name."""
    return dict(_catalogue()["aliases"])


def rows(suite: str) -> dict[str, EncoderRow]:
    """The encoders of a suite by name."""
    return {name: EncoderRow(name, **row) for name, row in _catalogue().get(suite, {}).items()}


def resolve_path(location: str) -> str:
    """Turn "package:..." into a path; leave hub ids and paths as they are."""
    if location.startswith(PACKAGE):
        return str(Path(str(resources.files("bench"))) / location.removeprefix(PACKAGE))
    return location
