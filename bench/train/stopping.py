"""Ctrl-C and SIGTERM: the update under way is finished and saved before the run stops."""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from bench.train.distributed import World

SIGNALS = (signal.SIGINT, signal.SIGTERM)
NOTICE = b"\nbench: stopping after this update; once more to stop at once\n"


class Interrupted(Exception):  # noqa: N818 - nothing went wrong
    """A signal stopped the run, and its checkpoint is written.

    Attributes:
        code: of the exit, 128 and the signal's number.
        main: whether this process is the one that speaks for all.
    """

    def __init__(self, message: str, number: int, *, main: bool) -> None:
        super().__init__(message)
        self.code, self.main = 128 + number, main


class Stop:
    """Within the block, a first signal is noted, and a second one acts as usual.

    Signals that the process ignores stay ignored; outside of the main thread nothing is changed.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int] = {}

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                before = signal.getsignal(number)
                if before is not None and before is not signal.SIG_IGN:
                    self._before[number] = before
                    signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self.__exit__()
        os.write(2, NOTICE)

    def asked(self, world: World) -> int | None:
        """The signal that one of the processes got; None if none did."""
        return int(world.most(float(self.number or 0))) or None
