"""How many samples to work on at once: as many as memory allows, found out on the way."""

import torch

from bench.errors import UsageError

CPU_SIZE, CUDA_SIZE = 256, 64  # to begin with
GROW_BELOW = 0.4  # share of memory used at the peak up to which twice as many samples surely fit


class BatchSize:
    """The current batch size. Never moves a result: samples do not depend on each other.

    Args:
        fixed: size asked for, which never grows; None to find out.
        device: where the batches are computed.
    """

    def __init__(self, fixed: int | None, device: torch.device) -> None:
        self.device = device
        self.size = fixed or (CUDA_SIZE if device.type == "cuda" else CPU_SIZE)
        self._may_grow = fixed is None and device.type == "cuda"

    def done(self, size: int) -> None:
        """A batch of this size went well: try twice as many if it filled the size and memory is far from full."""
        if self._may_grow and size >= self.size and self.peak_share() < GROW_BELOW:
            self.size *= 2

    def out_of_memory(self, size: int) -> None:
        """A batch of this size did not fit: half as many from now on.

        Raises:
            UsageError: not even one sample fits.
        """
        if size == 1:
            raise UsageError("out of memory at batch size 1; use a device with more memory") from None
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
