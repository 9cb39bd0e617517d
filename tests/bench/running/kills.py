"""Runs the command line in children that die at a chosen moment.

A plan is a list of [arguments, moment, nth]; a moment is a place in `MOMENTS`, at its nth visit. A child ends with its
exit code, or minus the signal that killed it.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from bench.cli import main
from bench.models.victims.endpoint.cache import Cache
from bench.records import store
from bench.running import loop as runner
from tests.commands import start

MOMENTS = (
    "none", "loading", "opening", "recovering", "before-records", "amid-records", "after-records", "before-finish",
    "amid-finish", "after-finish", "before-kept", "after-kept",
)  # fmt: skip


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _at(owner: Any, name: str, nth: int, *, before: bool) -> None:
    """Dies before or after the nth call of a function."""
    wrapped: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if before and calls == nth:
            _die()
        result = wrapped(*arguments, **named)
        if calls == nth:
            _die()
        return result

    setattr(owner, name, counted)


def _tear(nth: int) -> None:
    """Dies after half of the nth batch of records is on the disk."""
    write = os.write
    calls = 0

    def half(descriptor: int, content: bytes) -> int:
        nonlocal calls
        if content.startswith(b'{"sample_id"'):
            calls += 1
            if calls == nth:
                write(descriptor, content[: len(content) // 2])
                _die()
        return write(descriptor, content)

    store.os.write = half  # type: ignore[assignment]


def arm(moment: str, nth: int) -> None:
    """Makes this process die by SIGKILL at the nth visit of a moment."""
    if moment == "loading":
        _at(runner, "prepare", nth, before=False)
    elif moment == "opening":
        _at(store.RunStore, "_begin", nth, before=False)
    elif moment == "recovering":
        _at(store.RunStore, "_recover", nth, before=True)
    elif moment == "before-records":
        _at(store.RunStore, "_write", nth, before=True)
    elif moment == "amid-records":
        _tear(nth)
    elif moment == "after-records":
        _at(store.RunStore, "_write", nth, before=False)
    elif moment == "before-finish":
        _at(store.RunStore, "finish", nth, before=True)
    elif moment == "amid-finish":  # the new header is written, but not yet in its place
        finish = store.RunStore.finish

        def doomed(*arguments: Any, **named: Any) -> None:
            _at(os, "replace", 1, before=True)
            finish(*arguments, **named)

        store.RunStore.finish = doomed  # type: ignore[method-assign]
    elif moment in ("before-kept", "after-kept"):  # an endpoint's answer has come, and is put into the cache
        _at(Cache, "put", nth, before=moment == "before-kept")
    elif moment == "after-finish":
        _at(store.RunStore, "finish", nth, before=False)
    elif moment != "none":
        raise ValueError(f"no moment {moment!r}; there are {', '.join(MOMENTS)}")


def child(arguments: list[str], moment: str, nth: int, by: Callable[[str, int], None] = arm) -> int:
    """How a forked child ends that is armed and gives the command."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.dup2(2, 1)
        try:
            by(moment, nth)
            main(arguments, standalone_mode=False)
            os._exit(0)
        except BaseException as error:  # a child never returns into its parent's stack
            print(repr(error), file=sys.stderr)
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def carry_out(*plan: Sequence[Any], by: Callable[[str, int], None] = arm) -> tuple[list[int], str]:
    """How children end that give a command and die at a moment, one after the other; and what they said."""
    command = start(_follow, plan, by)
    assert command.wait() == 0, command.stderr
    return json.loads(command.stdout), command.stderr


def _follow(plan: Sequence[Sequence[Any]], by: Callable[[str, int], None]) -> None:
    print(json.dumps([child(*step, by) for step in plan]))
