"""Noting what a command asks for, for `bench status`."""

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.config import RunConfig
from bench.records.sweeps import Planned, Sweep, write_sweep


class Noted:
    """The runs of one command, noted in their output folder as a sweep; one run in one piece is none.

    Args:
        parts: of each run, its shards or itself.
        engine: where they are carried out.
    """

    def __init__(self, parts: Sequence[Sequence[RunConfig]], engine: str) -> None:
        self._output = parts[0][0].output
        self._is_sweep = sum(map(len, parts)) > 1
        runs = tuple(_planned(several[0], self._output) for several in parts)
        self._sweep = Sweep(_now(), None, platform.node(), os.getpid(), engine, runs)
        self._write(self._sweep)

    def end(self, found: Sequence[Path | Exception]) -> None:
        """Note what became of each run."""
        runs = tuple(
            Planned(run.directory, run.samples, run.passes, str(ended) if isinstance(ended, Exception) else None)
            for run, ended in zip(self._sweep.runs, found, strict=True)
        )
        now = self._sweep
        self._write(Sweep(now.began, _now(), now.host, now.process, now.engine, runs))

    def _write(self, sweep: Sweep) -> None:
        if self._is_sweep:
            write_sweep(self._output, sweep)


def _planned(config: RunConfig, output: Path) -> Planned:
    passes = len(config.eps) * sum(step.steps for step in config.steps)
    return Planned(str(config.directory.relative_to(output)), config.n_samples, passes)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
