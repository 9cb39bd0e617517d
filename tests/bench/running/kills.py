"""Runs the command line in children that die at a chosen moment. One process loads the libraries, forks do the rest.

``python -m tests.bench.running.kills PLAN`` reads a JSON list of [arguments, moment, nth] and prints, as a JSON list,
how each child ended: its exit code, or minus the signal that killed it. A moment is a place in `MOMENTS`, at its nth
visit.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from bench.cli import main
from bench.models.victims.endpoint.cache import Cache
from bench.records import store
from bench.running import loop as runner

MOMENTS = (
    "none", "loading", "opening", "recovering", "before-records", "amid-records", "after-records", "before-finish",
    "amid-finish", "after-finish", "before-kept", "after-kept",
)  # fmt: skip


def heed_ctrl_c() -> None:
    """In a child, before it begins: interrupts count, which a shell's background commands inherit as ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


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


def child(arguments: list[str], moment: str, nth: int) -> int:
    """How a forked child that gives the command ends."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.dup2(2, 1)
        try:
            arm(moment, nth)
            main(arguments, standalone_mode=False)
            os._exit(0)
        except BaseException as error:  # a child never returns into its parent's stack
            print(repr(error), file=sys.stderr)
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    print(json.dumps([child(*step) for step in json.loads(sys.argv[1])]))
