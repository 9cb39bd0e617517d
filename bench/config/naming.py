"""Names and places as parts of a directory's name, and such that they mean the same in any working folder."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from bench import registry
from bench.config.request import NATIVE, exists
from bench.config.suite import Suite, is_file
from bench.models.victims import specs
from bench.models.victims.specs import VictimSpec

LONGEST_NAME = 240  # bytes of a directory's name; a file system takes 255, and "--force" adds a few


def file_name(encoder: str) -> str:
    """An encoder's name as part of a directory's: a path is told from others of the same stem by a digest."""
    if "/" not in encoder:
        return Path(encoder).stem
    if "://" in encoder:
        return f"{re.sub(r'[^A-Za-z0-9.-]+', '-', encoder.rpartition('#')[2])}-{digest(encoder)}"
    place = str(Path(encoder).resolve()) if exists(encoder) else encoder
    return f"{Path(encoder).stem}-{digest(place)}"


def victim_file_name(victim: str) -> str:
    """A victim's name with its settings as part of a directory's name; those that cannot stand there as a digest."""
    spec = specs.parse(victim)
    chosen = ",".join(f"{key}={value}" for key, value in sorted(spec.settings.items()))
    plain = chosen.isascii() and chosen.isprintable() and not {"/", " "} & set(chosen) and len(chosen) <= 60
    return "-".join(part for part in (file_name(spec.name), chosen if plain else digest(chosen)) if part)


def shortened(name: str) -> str:
    """The name, or what of it a file system takes with a digest of the whole."""
    if len(name.encode()) <= LONGEST_NAME:
        return name
    beginning = name.encode()[: LONGEST_NAME - 7].decode(errors="ignore")
    return f"{beginning}-{digest(name)}"


def lasting(name: str) -> str:
    """A name that means the same in any working folder: a path is made absolute, also behind ``FAMILY:``."""
    if ("/" in name or is_file(name)) and exists(name):
        return str(Path(name).resolve())
    family, _, place = name.partition(":")
    return f"{family}:{Path(place).resolve()}" if "/" in place and exists(place) else name


def lasting_victim(victim: str) -> str:
    """The same for a victim and its settings."""
    spec = specs.parse(victim)
    return str(VictimSpec(lasting(spec.name), {key: lasting(value) for key, value in spec.settings.items()}))


def digest(text: str) -> str:
    """A few letters that tell texts apart."""
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def placed(name: str) -> str:
    """A path in the working folder with a slash, so that it is seen to be one; other names as they are."""
    return f"./{name}" if "/" not in name and exists(name) else name


def encoder_names(names: Sequence[str], suite: Suite) -> list[str]:
    """Row names for aliases, other names and places as `placed` has them."""
    from bench.models.encoders import catalogue

    aliases, known = catalogue.aliases(), known_encoders(suite)
    return list(dict.fromkeys(aliases.get(name) or (name if name in known else placed(name)) for name in names))


def known_encoders(suite: Suite) -> set[str]:
    """Names of encoders that are no places: rows, aliases, those of plugins, and that of a model's own."""
    from bench.models.encoders import catalogue

    return {*catalogue.rows(suite.encoders), *catalogue.aliases(), *registry.plugins("bench.encoders"), NATIVE}
