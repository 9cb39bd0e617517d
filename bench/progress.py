"""What a user sees while a run is under way: bars on a terminal, lines in a log, one display for many processes.

Everything goes to stderr; stdout belongs to results. Never imports torch.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

from tqdm import tqdm

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

    def begin(self, label: str, total: int) -> None:
        """A stage of ``total`` samples begins."""

    def advance(self, count: int, detail: str = "") -> None:
        """So many samples more are done; ``detail`` says how things stand, e.g. "12 standing, accuracy 53.2"."""

    def end(self) -> None:
        """The stage is over."""


class Silent:
    """Shows nothing."""

    def begin(self, label: str, total: int) -> None:
        """Nothing."""

    def advance(self, count: int, detail: str = "") -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""


class Bars:
    """A progress bar for a terminal, gone when its stage is over."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr

    def begin(self, label: str, total: int) -> None:
        """Show an empty bar."""
        self.bar: Any = tqdm(total=total, desc=label, file=self.stream, leave=False, dynamic_ncols=True,
                             mininterval=0)  # fmt: skip

    def advance(self, count: int, detail: str = "") -> None:
        """Move the bar; the time left is tqdm's estimate."""
        self.bar.set_postfix_str(detail, refresh=False)
        self.bar.update(count)

    def end(self) -> None:
        """Take the bar away."""
        self.bar.close()


class Lines:
    """A line now and then, for output that is not a terminal."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.stream, self.clock = stream or sys.stderr, clock

    def begin(self, label: str, total: int) -> None:
        """Say nothing yet: a short stage gets one line, at its end."""
        self.label, self.total, self.done, self.detail = label, total, 0, ""
        self.began = self.spoke = self.clock()

    def advance(self, count: int, detail: str = "") -> None:
        """Say how things stand, if the last line is some time ago."""
        self.done, self.detail = self.done + count, detail
        if self.clock() - self.spoke >= LINE_EVERY and self.done < self.total:
            self.spoke = self.clock()
            left = (self.spoke - self.began) * (self.total - self.done) / self.done
            self._say(f"about {_duration(left)} left")

    def end(self) -> None:
        """One line of what was done, and how long it took."""
        if self.done:
            self._say(f"took {_duration(self.clock() - self.began)}")

    def _say(self, last: str) -> None:
        words = [f"{self.label}: {self.done} of {self.total}", *([self.detail] if self.detail else []), last]
        print(", ".join(words), file=self.stream, flush=True)


class Relay:
    """Tells another process what to show; ``send`` is the ``put`` of a queue between the two."""

    def __init__(self, send: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        self.lines = Lines(self, clock)  # type: ignore[arg-type]
        self.send = send

    def begin(self, label: str, total: int) -> None:
        """As of `Lines`."""
        self.lines.begin(label, total)

    def advance(self, count: int, detail: str = "") -> None:
        """As of `Lines`."""
        self.lines.advance(count, detail)

    def end(self) -> None:
        """As of `Lines`."""
        self.lines.end()

    def write(self, text: str) -> None:
        """Take a line that `Lines` prints."""
        if text.strip():
            self.send(text.strip())

    def flush(self) -> None:
        """Lines leave at once."""


def choose(wanted: bool, stream: TextIO | None = None) -> Display:
    """Bars on a terminal, lines elsewhere, nothing if not wanted."""
    stream = stream or sys.stderr
    if not wanted:
        return Silent()
    return Bars(stream) if stream.isatty() else Lines(stream)


@contextmanager
def relayed(queue: Any, stream: TextIO | None = None):
    """Within the block, lines that `Relay`s put into ``queue`` are shown, above whatever bars there are."""
    stream = stream or sys.stderr

    def show() -> None:
        while (line := queue.get()) is not None:
            tqdm.write(line, file=stream)

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        queue.put(None)
        thread.join(timeout=5)


def _duration(seconds: float) -> str:
    """Seconds in words: "42 s", "3 min 10 s", "2 h 5 min"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
