"""The accelerators of this machine."""

import torch

from bench.running.engines.places import Device


def devices_for(name: str) -> list[Device]:
    """The devices on which runs that ask for `name` may be carried out; none where the name says where, or the CPU."""
    if name not in ("auto", "cuda") or not torch.cuda.is_available():
        return []
    count = range(torch.cuda.device_count())
    return [Device(f"cuda:{k}", torch.cuda.get_device_properties(k).total_memory) for k in count]
