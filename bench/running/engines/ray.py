"""Carrying out runs on a Ray cluster: one that is there, or one of this machine's own (extra: ``[ray]``)."""

import os
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from bench import registry
from bench.config import RunConfig
from bench.errors import UsageError
from bench.progress import choose
from bench.running.engines.driving import Drive, Ended
from bench.running.engines.options import count, share
from bench.running.engines.places import Place, Places
from bench.running.engines.worker import attempt


class Ray:
    """Each run is a task of a Ray cluster whose machines share a file system and have this package installed.

    Args:
        jobs: runs at once; None for as many as the cluster has room for.
        progress: whether to show how far they are.
        address: of the cluster, such as "auto" or "HOST:6379"; empty for that of the environment variable
            ``RAY_ADDRESS``, else a cluster of this machine that ends with the command.
        cpus: cores of each run.
        gpus: accelerators of each run, such as "0.25" where four share one; empty for one each if the cluster has any.
    """

    def __init__(
        self, *, jobs: int | None = None, progress: bool = True, address: str = "", cpus: str = "1", gpus: str = ""
    ) -> None:
        self._ray: Any = registry.extra("ray", "ray", "--on ray")
        errors = self._ray.exceptions
        self.killed: tuple[type[Exception], ...] = (
            errors.WorkerCrashedError,
            errors.OutOfMemoryError,
            errors.NodeDiedError,
        )
        self.jobs, self.progress, self.address = jobs, progress, address
        self.cpus = count(cpus, "ray", "cpus")
        self.gpus = share(gpus, "ray", "gpus") if gpus else None
        self._began = False

    def submit(self, configs: Sequence[RunConfig]) -> None:
        """Connect to the cluster, or begin one; `watch` gives it the runs."""
        self._connect()
        gpus = self.gpus if self.gpus is not None else float(self._ray.cluster_resources().get("GPU", 0) > 0)
        on_gpu = 0.0 if configs[0].device == "cpu" else gpus
        # a run whose worker was killed is begun again by `Drive`, as on every engine
        self._task = self._ray.remote(num_cpus=self.cpus, num_gpus=on_gpu, max_retries=0)(attempt)
        self._drive = Drive(self, configs, Places(self.jobs or len(configs)))

    def _connect(self) -> None:
        if self._ray.is_initialized():
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            self._ray.init(
                address=self.address or None, include_dashboard=False, log_to_driver=False, logging_level="error"
            )
        except Exception as error:  # Ray raises anything at all, a bare Exception too
            place = self.address or os.environ.get("RAY_ADDRESS", "this machine")
            raise UsageError(f"no Ray cluster at {place}: {error}; start one with `ray start --head`") from error
        self._began = True

    def watch(self) -> list[Ended]:
        """Wait for all."""
        return self._drive.carry_out(choose(self.progress))

    def start(self, config: RunConfig, place: Place) -> Future[Path | Exception]:
        """Give the cluster a run."""
        future: Future[Path | Exception] = self._task.remote(config, os.getcwd(), self.cpus).future()
        return future

    def stop(self) -> None:
        """Leave the cluster, which ends the runs that this command gave it."""
        if self._began:
            self._ray.shutdown()
