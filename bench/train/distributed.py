"""One process per device under ``torchrun``; alone without it."""

import os
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from bench.errors import UsageError


@dataclass(frozen=True)
class World:
    """This process among all that train together."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def share(self, batch: int) -> slice:
        """Which images of a global batch are this process's."""
        each = batch // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def mean(self, values: list[float]) -> list[float]:
        """Means over processes, in float64."""
        if self.size == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64).to(self.device)
        dist.all_reduce(total)
        return (total / self.size).tolist()

    def most(self, value: float) -> float:
        """The largest over processes."""
        if self.size == 1:
            return value
        found = torch.tensor(value, dtype=torch.float64).to(self.device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return found.item()

    def gather(self, value: object) -> list[object]:
        """One object per process, in the order of ranks."""
        if self.size == 1:
            return [value]
        found: list[object] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            dist.barrier()

    def parallel(self, module: nn.Module) -> nn.Module:
        """A module whose backward pass averages gradients over processes; its buffers stay equal without help."""
        if self.size == 1:
            return module
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=devices, broadcast_buffers=False)


def join(device: str = "auto") -> World:
    """The world that ``torchrun`` describes in the environment, or a world of one.

    Raises:
        UsageError: CUDA is asked for and there is none.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        if torch.device(device).type != "cuda":  # whose first use takes memory of its first device
            torch.zeros(1, device=device).item()  # "meta" holds no numbers
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {device!r} is not one of auto, cpu, cuda, cuda:0, ...") from error
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError("--device cuda: this machine has no CUDA device that torch can see; use --device cpu")
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return World(device=torch.device(device))
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return World(dist.get_rank(), dist.get_world_size(), torch.device(device))


def leave() -> None:
    """Say goodbye to the other processes, so that none waits for this one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
