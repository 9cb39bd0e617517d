"""The accelerators of this machine, and what a run needs of one."""

import torch

from bench.config import RunConfig
from bench.running.engines.places import Device


def devices_for(name: str) -> list[Device]:
    """The devices on which runs that ask for `name` may be carried out; none where they go to the CPU."""
    if name not in ("auto", "cuda") or not torch.cuda.is_available():
        return []
    count = range(torch.cuda.device_count())
    return [Device(f"cuda:{k}", torch.cuda.get_device_properties(k).total_memory) for k in count]


def need_of(config: RunConfig) -> int | None:
    """Say that nothing is known of what a run needs."""
    return None
