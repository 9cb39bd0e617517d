"""From outside: a sink that writes lines into a file."""

from collections.abc import Mapping
from pathlib import Path

from bench.sinks.base import Subject


class Lines:
    """A line per number."""

    def __init__(self, place: str, prefix: str = "") -> None:
        self.path, self.prefix = Path(place), prefix

    def begin(self, subject: Subject) -> None:
        self.name = subject.name

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        with self.path.open("a") as file:
            file.writelines(f"{self.prefix}{self.name} {step} {name} {value}\n" for name, value in numbers.items())

    def close(self) -> None:
        pass
