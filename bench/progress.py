"""What a user sees while a run is under way: bars on a terminal, lines in a log, one display for many processes.

Everything goes to stderr; stdout belongs to results. Never imports torch.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

from tqdm import tqdm

Event = tuple[int, str, tuple[Any, ...]]  # who tells of it, a method of `Display`, its arguments
BAR = "{desc}: {n_fmt}/{total_fmt} |{bar}| {remaining} left{postfix}"  # no more, so that 80 columns hold it
LEAST_BAR = 4
LONGEST_LABEL = 40  # characters, of the 80 that a narrow terminal has
LINE_EVERY = 10.0  # seconds between two lines about one stage in a log


@contextmanager
def no_bars_in_logs(enabled: bool, disable: Callable[[], None], enable: Callable[[], None]) -> Iterator[None]:
    """Another library's progress bars are for terminals; in a log each would leave dozens of lines.

    Args:
        enabled: whether its bars are on.
        disable: its function that turns them off.
        enable: its function that turns them on.
    """
    hide = enabled and not sys.stderr.isatty()
    if hide:
        disable()
    try:
        yield
    finally:
        if hide:
            enable()


class Display(Protocol):
    """Shows one stage after the other, e.g. an attack step at a radius."""

    def begin(self, label: str, total: int, done: int = 0) -> None:
        """A stage of ``total`` samples begins; so many of them were done before, in a run that goes on."""

    def advance(self, count: int, detail: str = "") -> None:
        """So many samples more are done; ``detail`` says how things stand, e.g. "12 of 40 robust, accuracy 53.2"."""

    def end(self) -> None:
        """The stage is over."""


class Silent:
    """Shows nothing."""

    def begin(self, label: str, total: int, done: int = 0) -> None:
        """Nothing."""

    def advance(self, count: int, detail: str = "") -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""


class Bars:
    """A progress bar for a terminal, gone when its stage is over; several stand below each other by their place."""

    def __init__(self, stream: TextIO | None = None, place: int | None = None) -> None:
        self.stream, self.place = stream or sys.stderr, place
        self.size: dict[str, Any] = {"dynamic_ncols": True} if _has_size(self.stream) else {"ncols": 79, "nrows": 24}

    def begin(self, label: str, total: int, done: int = 0) -> None:
        """Show an empty bar."""
        self.bar: Any = tqdm(
            total=total,
            initial=done,
            desc=_shortened(label),
            file=self.stream,
            leave=False,
            mininterval=0,
            position=self.place,
            bar_format=BAR,
            **self.size,
        )

    def advance(self, count: int, detail: str = "") -> None:
        """Move the bar; the time left is tqdm's estimate. A detail that does not fit is left out, part by part."""
        parts = detail.split(", ")
        choices = (", ".join(parts[first:]) for first in range(len(parts)))
        self.bar.set_postfix_str(next(filter(self._fits, choices), ""), refresh=False)
        self.bar.update(count)

    def _fits(self, detail: str) -> bool:
        """Whether the line holds this and a bar; else it would be cut in mid-word."""
        facts = self.bar.format_dict
        total = facts["total"]
        parts = {"n_fmt": total, "total_fmt": total, "bar": " " * LEAST_BAR, "remaining": "00:00:00"}
        line = BAR.format(desc=facts["prefix"], postfix=f", {detail}", **parts)
        return facts["ncols"] is None or len(line) < facts["ncols"]

    def end(self) -> None:
        """Take the bar away."""
        self.bar.close()


def _shortened(label: str) -> str:
    """The label, or its beginning and end."""
    half = LONGEST_LABEL // 2 - 1
    return label if len(label) <= LONGEST_LABEL else f"{label[:half]}..{label[-half:]}"


def _has_size(stream: TextIO) -> bool:
    """Whether a terminal says how large it is; on one of 0 rows, as under some remote shells, no bar would show."""
    try:
        return all(os.get_terminal_size(stream.fileno()))
    except (OSError, ValueError):
        return False


class Lines:
    """A line now and then, for output that is not a terminal."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.stream, self.clock = stream or sys.stderr, clock

    def begin(self, label: str, total: int, done: int = 0) -> None:
        """Say nothing yet: a short stage gets one line, at its end."""
        self.label, self.total, self.first, self.done, self.detail = label, total, done, done, ""
        self.began = self.spoke = self.clock()

    def advance(self, count: int, detail: str = "") -> None:
        """Say how things stand, if the last line is some time ago."""
        self.done, self.detail = self.done + count, detail
        if self.clock() - self.spoke >= LINE_EVERY and self.done < self.total:
            self.spoke = self.clock()
            self._say(self._left())

    def _left(self) -> str:
        """At the pace so far."""
        if self.done == self.first:
            return "time left unknown"
        return f"about {duration((self.spoke - self.began) * (self.total - self.done) / (self.done - self.first))} left"

    def end(self) -> None:
        """One line of what was done, and how long it took."""
        if self.done > self.first:
            self._say(f"took {duration(self.clock() - self.began)}")

    def _say(self, last: str) -> None:
        words = [f"{self.label}: {self.done} of {self.total}", *([self.detail] if self.detail else []), last]
        print(", ".join(words), file=self.stream, flush=True)


class Relay:
    """Tells another process what to show; ``send`` is the ``put`` of a queue between the two."""

    def __init__(self, send: Callable[[Event], object], who: int) -> None:
        self.send, self.who = send, who

    def begin(self, label: str, total: int, done: int = 0) -> None:
        """A stage begins there."""
        self.send((self.who, "begin", (label, total, done)))

    def advance(self, count: int, detail: str = "") -> None:
        """So many samples more are done there."""
        self.send((self.who, "advance", (count, detail)))

    def end(self) -> None:
        """The stage is over there."""
        self.send((self.who, "end", ()))


def choose(wanted: bool, stream: TextIO | None = None, place: int | None = None) -> Display:
    """Bars on a terminal, the one of this place from the top, lines elsewhere, nothing if not wanted."""
    stream = stream or sys.stderr
    if not wanted:
        return Silent()
    return Bars(stream, place) if stream.isatty() else Lines(stream)


@contextmanager
def relayed(queue: Any, stream: TextIO | None = None) -> Iterator[None]:
    """Within the block, what `Relay`s put into ``queue`` is shown: a display for each, below the one of the whole."""
    displays: dict[int, Display] = {}

    def show() -> None:
        while (event := queue.get()) is not None:
            who, what, arguments = event
            display = displays.setdefault(who, choose(True, stream, len(displays) + 1))
            getattr(display, what)(*arguments)

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        queue.put(None)
        thread.join(timeout=5)


def duration(seconds: float) -> str:
    """Seconds in words: "42 s", "3 min 10 s", "2 h 5 min"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
