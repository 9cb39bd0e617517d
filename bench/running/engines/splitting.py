"""A single run on several cores: in as many shards as pay, one thread each.

Small models leave most of a CPU idle when one process uses all cores, and a process with several threads waits for the
slowest of them, which is many times slower beside another busy process.
"""

from dataclasses import replace

from bench.config import RunConfig
from bench.models.victims.load import is_black_box
from bench.running.engines.devices import devices_for, usual_jobs
from bench.running.engines.need import need_of
from bench.running.forks import WORTH
from bench.running.plugins import task_class
from bench.running.victims import vlm_of

SMALL = 1 << 29  # bytes: every process loads the models anew


def split_over_cores(config: RunConfig, jobs: int | None) -> RunConfig:
    """The run in shards, if nobody said in how many and several are sooner done.

    Args:
        config: a run that is carried out by itself.
        jobs: processes at once; None for as many as this machine has cores.
    """
    if config.shards is not None or config.force or config.images is not None or devices_for(config.device):
        return config
    count = min(jobs or usual_jobs(config.device, []), config.n_samples // WORTH)
    return replace(config, shards=count) if count > 1 and _is_small(config) else config


def _is_small(config: RunConfig) -> bool:
    """Whether the models are known to fit into memory many times over."""
    if task_class(config.task).model == "vlm" and is_black_box(vlm_of(config)):
        return False
    need = need_of(config)
    return need is not None and need <= SMALL
