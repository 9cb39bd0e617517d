"""How fast and how far: requests a minute, pauses that the server asks for, and what a command may spend."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench.errors import StoppedError, UsageError


class Pace:
    """Lets requests go one after the other, so many a minute, and none while the server asks to wait. For threads."""

    def __init__(self, per_minute: float | None) -> None:
        self._gap = 60 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Wait for one's turn."""
        with self._lock:
            turn = max(time.monotonic(), self._next)
            self._next = turn + self._gap
        time.sleep(max(0.0, turn - time.monotonic()))

    def hold(self, seconds: float) -> None:
        """Let nobody go for a while."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


@dataclass(frozen=True)
class Price:
    """Of a million tokens."""

    prompt: float
    completion: float

    @classmethod
    def parse(cls, text: str) -> "Price":
        """Read IN,OUT.

        Raises:
            UsageError: it is no such thing.
        """
        try:
            prompt, completion = (float(part) for part in text.replace("+", ",").split(","))
        except ValueError:
            raise UsageError(f"--price is IN,OUT of a million tokens, such as 2.5,10, not {text!r}") from None
        if not (0 <= prompt < float("inf") and 0 <= completion < float("inf")):
            raise UsageError(f"--price must be finite and not below 0, not {text!r}")
        return cls(prompt, completion)

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """What a call cost."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


class Budget:
    """What a command may spend. Before a request goes out there is room for it and for all that are under way.

    What a request will cost is not known beforehand: the dearest so far stands for it, and the first goes alone.
    """

    def __init__(self, most: float | None) -> None:
        self.most, self.spent = most, 0.0
        self._dearest: float | None = None
        self._under_way = 0
        self._changed = threading.Condition()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Within it, one request is under way.

        Raises:
            StoppedError: there is no room for it.
        """
        with self._changed:
            while self._under_way and not self._has_room():
                self._changed.wait()
            if not self._has_room():
                raise StoppedError(
                    f"--max-cost {self.most:g} is used up: {self.spent:.4g} is spent, and one more request may cost "
                    f"{self._dearest or 0.0:.4g}. What was answered is kept; the same command goes on from there"
                )
            self._under_way += 1
        try:
            yield
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    def _has_room(self) -> bool:
        """Whether one more request may go out beside those that are under way."""
        if self.most is None:
            return True
        if self._dearest is None:
            return self._under_way == 0
        return self.spent + (self._under_way + 1) * self._dearest <= self.most

    def pay(self, cost: float | None) -> None:
        """Take note of what a request cost.

        Raises:
            StoppedError: that is not known, although there is a limit.
        """
        with self._changed:
            if cost is None:
                if self.most is not None:
                    raise StoppedError(
                        "the reply does not say how many tokens it took, so that --max-cost cannot be kept"
                    )
                return
            self.spent += cost
            self._dearest = max(cost, self._dearest or 0.0)
            self._changed.notify_all()
