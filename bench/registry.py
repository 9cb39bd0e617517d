"""Names to things: built-ins by "module:attribute", third parties by entry points, and "did you mean"."""

import difflib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from bench.errors import UsageError

TASKS = {
    "zeroshot": "tasks.zeroshot:ZeroShot",
    "captioning": "tasks.captioning:Captioning",
    "vqa": "tasks.vqa:VQA",
    "stealth": "tasks.stealth:Stealth",
}
OBJECTIVES = {
    "fare": "bench.train.objectives:fare",
    "tecoa": "bench.train.objectives:tecoa",
    "cosine": "bench.train.objectives:cosine",
    "fare-patches": "bench.train.objectives:fare_patches",
}
CLAIMS = {"mini": "bench.mini.claims:claims_block"}
_BUILT_IN: Mapping[str, Mapping[str, str]] = {
    "bench.tasks": TASKS,
    "bench.encoders": {},
    "bench.attacks": {},
    "bench.objectives": OBJECTIVES,
    "bench.attack_kinds": {},
    "bench.claims": CLAIMS,
}


@cache
def plugins(group: str) -> dict[str, EntryPoint]:
    """Entry points of third-party packages in one of the groups above, such as "bench.encoders"."""
    return {point.name: point for point in entry_points(group=group)}


def names(group: str) -> list[str]:
    """All names of a group, built-in ones first."""
    built_in = _BUILT_IN[group]
    return [*built_in, *sorted(plugins(group).keys() - built_in.keys())]


def resolve(group: str, name: str) -> object:
    """Import what a name stands for.

    Raises:
        UsageError: an unknown name, with the nearest known one; a plugin that cannot be imported.
    """
    if name in _BUILT_IN[group]:
        module, _, attribute = _BUILT_IN[group][name].partition(":")
        return getattr(import_module(module), attribute)
    if name not in plugins(group):
        raise unknown(group.removeprefix("bench.").removesuffix("s"), name, names(group))
    try:
        return plugins(group)[name].load()
    except Exception as error:
        raise UsageError(f"the plugin {plugins(group)[name].value} for {name!r} cannot be imported: {error}") from error


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is not known: suggests the nearest, lists all."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return UsageError(f"unknown {kind} {name!r}; {hint}known: {', '.join(known)}")
