"""How far a run is, on stderr: a live bar on a terminal, plain lines in a log. Stdout is left to results."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

from tqdm import tqdm

LINE_EVERY = 30.0  # seconds between the lines of a log


class Stage:
    """One stage of a run, such as one attack step at one radius; a context manager.

    Args:
        label: What is done, such as "fare4 mini-vqa apgd 4/255".
        total: Samples to do.
        stream: Where to write, such as stderr; None writes nothing.
        clock: Seconds that only grow.
    """

    def __init__(
        self, label: str, total: int, stream: TextIO | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.label, self.total, self.stream, self.clock = label, total, stream, clock
        self.done = 0
        self._began = self._shown = clock()
        self._state = ""
        on_terminal = stream is not None and stream.isatty()
        self._bar = tqdm(total=total, desc=label, file=stream, leave=False) if on_terminal else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, samples: int, *, standing: int | None = None, score: float | None = None) -> None:
        """Counts samples as done.

        Args:
            samples: How many more.
            standing: Samples that the attacker has not broken yet; None before any attack.
            score: The mean score as of now: clean, or robust at this radius.
        """
        self.done += samples
        parts = [] if standing is None else [f"{standing} standing"]
        if score is not None:
            parts.append(f"{'score' if standing is None else 'robust score'} {score:.1f}")
        self._state = ", ".join(parts)
        if self._bar is not None:
            self._bar.set_postfix_str(self._state, refresh=False)
            self._bar.update(samples)
        elif self.stream is not None and (self.done >= self.total or self.clock() - self._shown >= LINE_EVERY):
            self._shown = self.clock()
            print(self.line(), file=self.stream, flush=True)

    def line(self) -> str:
        """Such as "fare4 mini-vqa apgd 4/255: 120/500 samples, 88 standing, robust score 61.2, 3:20 left"."""
        parts = [f"{self.done}/{self.total} samples", *([self._state] if self._state else [])]
        elapsed = self.clock() - self._began
        if self.done >= self.total:
            parts.append(f"took {_minutes(elapsed)}")
        elif self.done:
            parts.append(f"{_minutes(elapsed / self.done * (self.total - self.done))} left")
        return f"{self.label}: {', '.join(parts)}"


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
