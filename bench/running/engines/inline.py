"""Carrying out one run after the other in this process."""

from collections.abc import Sequence
from pathlib import Path

from bench.config import RunConfig
from bench.progress import choose


class Inline:
    """The plainest engine; ``jobs`` has no effect."""

    def __init__(self, *, jobs: int | None = None, progress: bool = True) -> None:
        self.display = choose(progress)
        self.configs: tuple[RunConfig, ...] = ()

    def submit(self, configs: Sequence[RunConfig]) -> None:
        """Take note of the runs."""
        self.configs = tuple(configs)

    def watch(self) -> list[Path | Exception]:
        """Carry them out."""
        return [self._outcome(config) for config in self.configs]

    def _outcome(self, config: RunConfig) -> Path | Exception:
        from bench.running.loop import execute  # imports what models need, which who waits for workers does not

        try:
            return execute(config, display=self.display)
        except Exception as error:
            return error
