"""Choosing among finished runs by what their headers say."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from bench import registry
from bench.errors import UsageError
from bench.records import Run, RunHeader

_BY_PROPERTY = {
    "protocol": "protocol_name",
    "precision": "precision",
    "radii_order": "radii_order",
    "tower": "tower",
    "surrogate": "surrogate",
    "surrogate_model": "surrogate_model",
    "selection": "selection",
    "data": "data",
    "defence": "defence",
    "judge": "judge",
    "partial": "partial",
    "commit": "commit",
}
_FIELDS = (
    "suite",
    "encoder",
    "task",
    "task_version",
    "dataset",
    "metric",
    "norm",
    "attack",
    "seed",
    "n_samples",
    "limit",
    "model",
    "device",
    "status",
)
KEYS = (*_FIELDS, *_BY_PROPERTY)
NONE = "none"


def value_of(header: RunHeader, key: str) -> str:
    """A header's value as text; "none" for what it has not."""
    value = getattr(header, _BY_PROPERTY.get(key, key))
    return NONE if value is None else str(value)


def choose(runs: Sequence[Run], conditions: Sequence[tuple[str, str]]) -> list[Run]:
    """The runs that fit every condition.

    Args:
        runs: to choose among.
        conditions: pairs of one of `KEYS` and the values it may have, comma-separated; "*" and "?" stand for any text
            and any character, "none" for an absent value.

    Raises:
        UsageError: an unknown key, or no run fits; says what there is.
    """
    chosen = list(runs)
    for key, wanted in conditions:
        if key not in KEYS:
            raise registry.unknown("property of runs", key, KEYS)
        patterns = [pattern.strip() for pattern in wanted.split(",")]
        fitting = [run for run in chosen if any(fnmatchcase(value_of(run.header, key), p) for p in patterns)]
        if not fitting:
            there = ", ".join(dict.fromkeys(value_of(run.header, key) for run in chosen))
            raise UsageError(f"no run has {key} {wanted!r}; there are: {there}")
        chosen = fitting
    return chosen
