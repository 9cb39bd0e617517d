"""What is written while a run trains: progress, metrics.jsonl, observers."""

import json
import math
import os
import sys
import time
from pathlib import Path

from tqdm import tqdm

from bench import progress
from bench.train.checkpoint import TrainingError
from bench.train.hooks import Hooks, Update
from bench.train.schedule import Schedule, logged


def say(text: str) -> None:
    """A line on stderr, above the bar if there is one."""
    tqdm.write(text, file=sys.stderr)


class Log:
    """Progress, metrics.jsonl and observers."""

    def __init__(self, name: str, path: Path, schedule: Schedule, hooks: Hooks, first: int) -> None:
        self._path, self._schedule, self._hooks = path, schedule, hooks
        self._started = self._last = time.monotonic()
        self._last_step, self._detail = first, ""
        if hooks.world.main and path.exists():
            keep_rows_before(first, path)
        self._display = progress.choose(hooks.world.main)
        self._display.begin(name, schedule.steps, first)

    def note(self, step: int, rate: float, update: Update) -> None:
        """One update is done; every tenth is written."""
        if logged(step, self._schedule):
            self._write_update(step, rate, update)
        self._display.advance(1, self._detail)

    def _write_update(self, step: int, rate: float, update: Update) -> None:
        now = time.monotonic()
        speed = (step + 1 - self._last_step) * self._schedule.batch / max(now - self._last, 1e-9)
        self._last, self._last_step = now, step + 1
        row = {"step": step, "loss": update.loss, "rate": rate, **update.figures}
        row |= {"images_per_second": round(speed, 2), "seconds": round(now - self._started, 1)}
        self.write(row)
        self._detail = f"loss {update.loss:.4g}, {speed:.3g} images/s"

    def write(self, row: dict[str, float]) -> None:
        """Append a row and show it to the observers."""
        if not self._hooks.world.main:
            return
        try:
            with self._path.open("a") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise TrainingError(f"cannot write {self._path}: {error.strerror}; fix that and run again") from error
        self._hooks.observe(row)

    def close(self) -> None:
        """Take the bar away."""
        self._display.end()


def keep_rows_before(first: int, path: Path) -> None:
    """Drop the rows of steps that will be taken again; a crash leaves the file as it was."""
    kept = [line for line in path.read_text(errors="replace").splitlines() if _step_of(line) < first]
    shorter = path.with_suffix(".tmp")
    try:
        shorter.write_text("".join(line + "\n" for line in kept))
        os.replace(shorter, path)
    except OSError as error:
        raise TrainingError(f"cannot write {path}: {error.strerror}; fix that and run again") from error


def _step_of(line: str) -> float:
    """The step of a row; infinity for a line that is none, such as one that a crash cut short, so that it goes."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return math.inf
