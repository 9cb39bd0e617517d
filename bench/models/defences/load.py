"""From what users write to defences: ``jpeg?quality=50``."""

import inspect
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from bench import registry
from bench.errors import UsageError
from bench.models.defences.base import Defence
from bench.models.defences.chain import Chain

GROUP = "bench.defences"


def load_chain(specs: Iterable[str]) -> Chain:
    """Defences in a row.

    Raises:
        UsageError: as of `load_defence`.
    """
    return Chain(tuple(load_defence(spec) for spec in specs))


def load_defence(spec: str) -> Defence:
    """One defence with its options, as NAME or NAME?OPTION=VALUE&OPTION=VALUE.

    Raises:
        UsageError: an unknown name or option, or a value of the wrong kind; or a plugin that is no defence.
    """
    name, _, query = spec.partition("?")
    found = _defence_class(name)
    known: dict[str, Any] = {f.name: f for f in fields(found) if f.init} if is_dataclass(found) else {}
    types = get_type_hints(found)
    chosen: dict[str, Any] = {}
    for option, text in registry.options(query, f"defence {name!r}").items():
        if option not in known:
            raise registry.unknown(f"option of defence {name!r}", option, known)
        chosen[option] = _value(types[option], text, f"defence {name!r}: {option}")
    return found(**chosen)


def _defence_class(name: str) -> type[Defence]:
    if name not in registry.names(GROUP):
        raise registry.unknown("defence", name, registry.names(GROUP))
    found = registry.resolve(GROUP, name)
    if not (inspect.isclass(found) and issubclass(found, Defence)):
        raise registry.broken(GROUP, name, "it is no class made of bench.models.defences.base.Defence")
    return found


def _value(kind: Any, text: str, option: str) -> Any:
    if get_origin(kind) is Literal:
        if text not in get_args(kind):
            raise UsageError(f"{option} must be {' or '.join(get_args(kind))}, not {text!r}")
        return text
    try:
        return kind(text)
    except (TypeError, ValueError):
        raise UsageError(f"{option} takes {_NAMES.get(kind, 'a value')}, not {text!r}") from None


_NAMES: dict[Any, str] = {int: "a whole number", float: "a number"}
