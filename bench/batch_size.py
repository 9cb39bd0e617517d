"""How many samples to work on at once: as many as memory allows, found out on the way."""

from collections.abc import Callable
from typing import TypeVar

import torch

CPU_SIZE, CUDA_SIZE = 256, 64  # to begin with
SMALL_IMAGE = 64  # pixels a side
CPU_SIZE_OF_LARGE_IMAGES = 4  # a CPU gains nothing from more, and what does not fit there is killed, not refused
GROW_BELOW = 0.4  # share of memory used at the peak up to which twice as many samples surely fit
TOO_LARGE = "out of memory at batch size 1; use a device with more memory"

T = TypeVar("T")


class BatchSize:
    """The current batch size. Never moves a result: samples do not depend on each other.

    Args:
        fixed: size asked for, which never grows; None to find out.
        device: where the batches are computed.
        side: the longer side of an image, in pixels.
    """

    def __init__(self, fixed: int | None, device: torch.device, side: int = SMALL_IMAGE) -> None:
        self.device = device
        on_cpu = CPU_SIZE if side <= SMALL_IMAGE else CPU_SIZE_OF_LARGE_IMAGES
        self.size = fixed or (CUDA_SIZE if device.type == "cuda" else on_cpu)
        self._may_grow = fixed is None and device.type == "cuda"

    def done(self, size: int) -> None:
        """A batch of this size went well: try twice as many if it filled the size and memory is far from full."""
        if self._may_grow and size >= self.size and self.peak_share() < GROW_BELOW:
            self.size *= 2

    def out_of_memory(self, size: int) -> None:
        """A batch of this size did not fit: half as many from now on."""
        self.size = max(1, min(self.size, size) // 2)
        self._may_grow = False
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def peak_share(self) -> float:
        """Share of the device's memory that torch held at most since it was last asked."""
        total = torch.cuda.get_device_properties(self.device).total_memory
        peak = torch.cuda.max_memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        return peak / total


def within_memory(work: Callable[[list[int]], T], batch: list[int]) -> T | None:
    """What `work` makes of a batch; None if there is not enough memory for it.

    The error is let go of before this returns, and with it the tensors in the frames that it came through.
    """
    try:
        return work(batch)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None


_WORDS = ("out of memory", "not enough memory", "allocate memory", "status_alloc_failed")


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out: torch has a class for that, but neither CPU allocators nor CUDA's libraries use it."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(word in str(error).lower() for word in _WORDS)
