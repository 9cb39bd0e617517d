"""Attack kinds by name."""

from collections.abc import Iterable

from attacks.kinds import AttackKind, kind_of
from attacks.presets import AttackStep
from bench import registry
from bench.errors import UsageError

GROUP = "bench.attack_kinds"


def attack_kind(name: str) -> AttackKind:
    """A kind by name: built in, or from a plugin.

    Raises:
        UsageError: an unknown kind, or a plugin that is none.
    """
    if name not in registry.names(GROUP):
        raise registry.unknown("kind of attack", name, registry.names(GROUP))
    try:
        return kind_of(registry.resolve(GROUP, name))
    except TypeError as error:
        raise UsageError(f"the plugin attack kind {name!r}: {error}") from error


def check_steps(steps: Iterable[AttackStep]) -> None:
    """Refuse steps of unknown kinds, and options that a kind does not understand.

    Raises:
        UsageError: names the step and what is possible.
    """
    for step in steps:
        try:
            attack_kind(step.kind).check(step)
        except ValueError as error:
            raise UsageError(f"attack step {step.name!r}: {error}") from error
