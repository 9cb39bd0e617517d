"""Driving a sweep: starting runs where there is room, waiting for them, resuming those whose worker was killed."""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from bench.config import RunConfig
from bench.errors import UsageError
from bench.progress import Display
from bench.running.engines.places import Place, Places
from bench.trust.text import on_one_line

STARTS = 2  # of a run whose worker is killed: the second resumes the first
PAUSE = 0.05  # seconds between two looks at what has ended
Ended = Path | Exception


class Handle(Protocol):
    """A run that was started."""

    def done(self) -> bool:
        """Whether it has ended."""

    def result(self) -> Ended:
        """Its directory, or what is wrong with what was asked; raises what else it raised."""


class Workers(Protocol):
    """What starts single runs.

    Attributes:
        killed: what `start` or a handle's `result` raises where the run's process was killed.
    """

    killed: tuple[type[Exception], ...]

    def start(self, config: RunConfig, place: Place) -> Handle:
        """Begin to carry out a run in a place that nothing else holds."""

    def stop(self) -> None:
        """End what still runs, and what was started for it."""


def unknown_need(config: RunConfig) -> int | None:
    """Say that nothing is known of the memory that a run needs."""
    return None


class Drive:
    """One sweep under way.

    Args:
        workers: what starts runs.
        configs: the runs.
        places: where there is room for them.
        need: bytes that a run needs of its device; None if that is not known.
    """

    def __init__(
        self,
        workers: Workers,
        configs: Sequence[RunConfig],
        places: Places,
        need: Callable[[RunConfig], int | None] = unknown_need,
    ) -> None:
        self.workers, self.configs, self.places = workers, configs, places
        self._needs = [need(config) for config in configs]
        self._waiting = list(range(len(configs)))
        self._running: dict[int, tuple[Place, Handle]] = {}
        self._starts = [0] * len(configs)
        self._ended: dict[int, Ended] = {}

    def carry_out(self, display: Display) -> list[Ended]:
        """Wait for all; returns the directory of each, or why it failed.

        A run that fails does not stop the others; Ctrl-C does.
        """
        display.begin("runs" if len({config.directory for config in self.configs}) > 1 else "parts", len(self.configs))
        try:
            while self._waiting or self._running:
                self._start()
                for number in [number for number, (_, handle) in self._running.items() if handle.done()]:
                    self._end(number, display)
                time.sleep(PAUSE)
        finally:
            self.workers.stop()
        display.end()
        return [self._ended[number] for number in range(len(self.configs))]

    def _start(self) -> None:
        for number in tuple(self._waiting):
            if (place := self.places.take(self._needs[number])) is None:
                continue
            self._waiting.remove(number)
            self._starts[number] += 1
            self._running[number] = place, self.workers.start(self.configs[number], place)

    def _end(self, number: int, display: Display) -> None:
        place, handle = self._running.pop(number)
        self.places.leave(place)
        try:
            ended = handle.result()
        except self.workers.killed as error:
            if self._starts[number] < STARTS:
                self._waiting.append(number)
                return
            ended = _killed(error)
        except Exception as error:
            ended = error
        self._ended[number] = ended
        if isinstance(ended, Exception) and len(self.configs) > 1:
            tqdm.write(f"failed: {self.configs[number].folder}: {on_one_line(str(ended))}", file=sys.stderr)
        display.advance(1, self._words())

    def _words(self) -> str:
        """How the sweep is doing."""
        failed = sum(isinstance(ended, Exception) for ended in self._ended.values())
        counts = {"running": len(self._running), "waiting": len(self._waiting), "failed": failed}
        return ", ".join(f"{count} {state}" for state, count in counts.items() if count)


def _killed(error: Exception) -> UsageError:
    failure = UsageError(
        "a worker process was killed, perhaps for want of memory. What it recorded is kept: give the command again to "
        "resume, with fewer --jobs if memory is short"
    )
    failure.__cause__ = error
    return failure
