"""From a name, folder or hub id to a victim: the family whose checkpoint it is loads it."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from bench import registry
from bench.errors import UsageError
from bench.models.encoders.catalogue import resolve_path
from bench.models.victims.catalogue import place_of, rows
from bench.models.victims.family import Family, Source

if TYPE_CHECKING:
    import torch

    from bench.models.encoders.encoder import Encoder
    from bench.models.victims.loaded import LoadedVictim

GROUP = "bench.victims"


def load_victim(
    place: str,
    encoder: "Encoder | None",
    settings: Mapping[str, str] | None = None,
    *,
    device: "torch.device | None" = None,
) -> "LoadedVictim":
    """Load a victim around an encoder.

    Args:
        place: a name of the catalogue of victims, or a folder, file, hub id or address; ``package:...`` for what ships
            with this package; ``FAMILY:PLACE`` where it does not show its family, or several would read it.
        encoder: what its image tower is replaced by; None to keep its own, where the family can.
        settings: what of the family's `Family.settings` is chosen; those that a family does not have are refused.
        device: where the victim goes; by default where the encoder is, else the CPU.

    Raises:
        UsageError: nothing is there, no family reads it, a setting is unknown, or see `Family.load`.
    """
    name, found, source = family_of(resolve_path(place_of(place)))
    chosen = dict(settings or {})
    for key, value in chosen.items():
        if key not in found.settings:
            raise registry.unknown(f"setting of the victim family {name!r}", key, found.settings)
        if (choices := found.settings[key].choices) and value not in choices:
            raise registry.unknown(key, value, choices)
    return found.load(source, encoder, chosen, device or _device(encoder))


def settings_of(
    place: str, protocol: str, of_suite: Mapping[str, Mapping[str, str]], chosen: Mapping[str, str]
) -> dict[str, str]:
    """Settings of a victim: those that its family's protocol brings, those of a suite, those that were chosen.

    Args:
        place: as of `load_victim`.
        protocol: name of the run's protocol.
        of_suite: what the suite says, by family.
        chosen: what the user says; it counts before all others.

    Raises:
        UsageError: no family reads the place.
    """
    name, found, _ = family_of(resolve_path(place_of(place)))
    brought: Mapping[str, Mapping[str, str]] = getattr(found, "protocols", {})
    return {**brought.get(protocol, {}), **of_suite.get(name, {}), **chosen}


def family_of(place: str) -> tuple[str, Family, Source]:
    """The name of the family that reads a place, the family, and the place without the family's name.

    Raises:
        UsageError: none does.
    """
    named, _, rest = place.partition(":")
    if rest and named in registry.names(GROUP):
        return named, family(named), Source(rest, _config(rest))
    source, broken = Source(place, _config(place)), []
    for name in registry.names(GROUP):
        try:
            found = family(name)
            if registry.examined(GROUP, name, partial(found.owns, source)):
                return name, found, source
        except UsageError as error:
            broken.append(str(error))
    raise UsageError("; ".join([_unread(source), *broken]))


def is_black_box(place: str) -> bool:
    """Whether a place names a family of which only answers are to be had; other places are not looked at."""
    named, _, rest = place.partition(":")
    if not rest or named not in registry.names(GROUP):
        return False
    found = family(named)
    return registry.examined(GROUP, named, lambda: bool(getattr(found, "black_box", False)))


def family(name: str) -> Family:
    """A family by name.

    Raises:
        UsageError: an unknown name, or a plugin that is none.
    """
    return cast(Family, registry.made(GROUP, name, Family))


def families() -> Iterator[tuple[str, Family | UsageError]]:
    """Every family by name, or what is wrong with it."""
    for name in registry.names(GROUP):
        try:
            yield name, family(name)
        except UsageError as error:
            yield name, error


def _device(encoder: "Encoder | None") -> "torch.device":
    import torch

    return encoder.mean.device if encoder is not None else torch.device("cpu")


def _config(place: str) -> dict[str, object]:
    from bench.trust.code import config_of

    return config_of(place)


def _unread(source: Source) -> str:
    place, known = source.place, ", ".join(registry.names(GROUP))
    if place.startswith(("http://", "https://")):
        return f"an endpoint is named by its family: openai:{place}"
    if source.model_type is not None:
        return f"{place} holds a model of type {source.model_type!r}; the victims that can be loaded are: {known}"
    if Path(place).is_dir():
        return f"{place} lacks a config.json with a model_type; download the whole folder"
    if Path(place).exists():
        return f"{place} is no folder of a vision-language model; the victims that can be loaded are: {known}"
    if place.startswith((".", "/")) or place.count("/") != 1:
        return f"no such model folder: {place}; victims by name are: {', '.join(rows())}"
    return (
        f"no folder {place}, and the hub's cache does not hold a model of that name. Where there is a network, run "
        f"`hf download {place}`, copy its cache here and let HF_HOME name it; or give a downloaded folder as --vlm"
    )
