"""Carrying out runs as Slurm jobs, through submitit (extra: ``[slurm]``)."""

import os
from collections.abc import Sequence
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

FOLDER = "slurm"  # in the output folder: submitit's scripts and logs
CLUSTERS = ("slurm", "local")


class Attempt:
    """One run as a job; when its time is over or it is preempted, Slurm puts it into the queue again."""

    def __call__(self, config: RunConfig, folder: str, threads: int) -> Path | Exception:
        """Carry out the run."""
        return attempt(config, folder, threads)

    def checkpoint(self, *arguments: Any) -> Any:
        """What is to be queued again: the same, for a run resumes from its records."""
        return registry.extra("submitit", "slurm", "--on slurm").helpers.DelayedSubmission(self, *arguments)


class Slurm:
    """Each run is a job; the machines share a file system and this Python environment.

    Args:
        jobs: jobs in the queue at once; None for all (with cluster=local: one per core).
        progress: whether to show how far they are.
        partition: of Slurm; so account, qos and constraint.
        account: see ``partition``.
        qos: see ``partition``.
        constraint: see ``partition``.
        time: minutes that a job may take; one that needs more is queued again and resumes.
        cpus: cores of a job.
        gpus: accelerators of a job; by default 1, with --device cpu none. A run uses one.
        mem: GB of a job's main memory; by default what the cluster gives.
        cluster: "slurm", or "local" for processes of this machine, to try things out.
    """

    def __init__(
        self,
        *,
        jobs: int | None = None,
        progress: bool = True,
        partition: str = "",
        account: str = "",
        qos: str = "",
        constraint: str = "",
        time: str = "240",
        cpus: str = "4",
        gpus: str = "",
        mem: str = "",
        cluster: str = "slurm",
    ) -> None:
        submitit: Any = registry.extra("submitit", "slurm", "--on slurm")
        if cluster not in CLUSTERS:
            raise registry.unknown("cluster of --on slurm", cluster, CLUSTERS)
        self._executor_of = submitit.AutoExecutor
        self.killed: tuple[type[Exception], ...] = (submitit.core.utils.UncompletedJobError,)
        self.jobs, self.progress, self.cluster = jobs, progress, cluster
        self.gpus = int(share(gpus, "slurm", "gpus")) if gpus else None
        self.cpus = count(cpus, "slurm", "cpus")
        named = {"partition": partition, "account": account, "qos": qos, "constraint": constraint}
        self._settings: dict[str, Any] = {f"slurm_{name}": value for name, value in named.items() if value}
        self._settings |= {"timeout_min": count(time, "slurm", "time"), "cpus_per_task": self.cpus}
        self._settings |= {"mem_gb": count(mem, "slurm", "mem")} if mem else {}
        self._started: list[Any] = []

    def submit(self, configs: Sequence[RunConfig]) -> None:
        """Make ready; `watch` puts the jobs into the queue."""
        logs = configs[0].output.resolve() / FOLDER
        logs.mkdir(parents=True, exist_ok=True)
        usual = int(configs[0].device != "cpu" and self.cluster == "slurm")
        gpus = usual if self.gpus is None else self.gpus
        try:
            self._executor = self._executor_of(folder=logs / "%j", cluster=self.cluster)
        except RuntimeError as error:
            raise UsageError(f"no Slurm on this machine ({error}); try --on 'slurm?cluster=local'") from error
        self._executor.update_parameters(name="bench", gpus_per_node=gpus, **self._settings)
        slots = self.jobs or (os.cpu_count() or 1 if self.cluster == "local" else len(configs))
        self._drive = Drive(self, configs, Places(slots))

    def watch(self) -> list[Ended]:
        """Wait for all."""
        return self._drive.carry_out(choose(self.progress))

    def start(self, config: RunConfig, place: Place) -> Any:
        """Put a run into the queue."""
        job = self._executor.submit(Attempt(), config, os.getcwd(), self.cpus)
        self._started.append(job)
        return job

    def stop(self) -> None:
        """Cancel what has not ended."""
        for job in self._started:
            if not job.done():
                job.cancel(check=False)
