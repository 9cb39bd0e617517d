"""A sink that keeps what it is told."""

import os
from typing import ClassVar

from bench.sinks.base import Subject


class Recording:
    """Keeps what it is told, and fails where its place says."""

    told: ClassVar[list[tuple[object, ...]]] = []

    def __init__(self, place: str, colour: str = "red") -> None:
        self.place = place
        self.told.append(("made", place, colour))

    def begin(self, subject: Subject) -> None:
        self._note("begin", subject)

    def log(self, step: int, numbers: dict[str, float]) -> None:
        self._note("log", step, numbers)

    def close(self) -> None:
        self._note("close")

    def _note(self, method: str, *arguments: object) -> None:
        self.told.append((method, *arguments))
        if self.place == method:
            raise ConnectionError(f"no answer to {method} with key {os.environ.get('SOME_API_KEY')}")
