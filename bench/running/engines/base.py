"""What an engine is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from bench.config import RunConfig


class Engine(Protocol):
    """Carries out runs somewhere. Runs share nothing but the disk, and each can be resumed.

    Whatever becomes of an engine, `bench.running.loop.execute(config)` on some machine is what carries out a run. A run
    in shards comes as one configuration per shard. What ``--on NAME:ADDRESS?key=value`` says beside the name arrives as
    further keyword arguments, ``address`` among them; an engine takes those that its class names.
    """

    def __init__(self, *, jobs: int | None, progress: bool) -> None:
        """Make ready.

        Args:
            jobs: runs at once; None for what suits the engine.
            progress: whether `watch` shows how far the runs are.
        """

    def submit(self, configs: Sequence[RunConfig]) -> None:
        """Begin to carry out runs, or put them where they will be; does not wait for them."""

    def watch(self) -> Sequence[Path | Exception]:
        """Wait until all have ended; returns the directory of each, or why it failed, in the order of `submit`.

        A run that fails does not stop the others.
        """
