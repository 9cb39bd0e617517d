"""The accelerators of this machine, and how many runs it carries out at once."""

import os

import torch

from bench.running.engines.places import Device


def devices_for(name: str) -> list[Device]:
    """The CUDA devices on which runs that ask for `name` may be carried out; none where there is none of that name."""
    if not (name == "auto" or name.startswith("cuda")) or not torch.cuda.is_available():
        return []
    there = [f"cuda:{k}" for k in range(torch.cuda.device_count())]
    chosen = there if name in ("auto", "cuda") else [one for one in there if one == name]
    return [Device(one, torch.cuda.get_device_properties(one).total_memory) for one in chosen]


def usual_jobs(name: str, devices: list[Device]) -> int:
    """Runs at once, one per core, unless they go to an accelerator of which nothing is known."""
    on_cpu = name == "cpu" or (name == "auto" and not torch.cuda.is_available())
    return (os.cpu_count() or 1) if on_cpu or devices else 1
