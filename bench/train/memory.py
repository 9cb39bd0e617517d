"""What to say when memory does not suffice: the largest micro-batch that fits, found by trying."""

from collections.abc import Callable

import torch

from bench.batch_size import is_out_of_memory
from bench.train.checkpoint import TrainingError


def out_of_memory(size: int, share: int, attempt: Callable[[int], None]) -> TrainingError:
    """The error for ``size`` images at once, of the ``share`` of a device; ``attempt`` tries fewer."""
    fits = largest_that_fits(attempt, size)
    if fits == 0:
        return TrainingError("out of memory even with one image at a time; use --checkpoint-activations or --bf16")
    return TrainingError(
        f"out of memory with {size} images at once; {fits} fit: add --micro-batch {fits}. The {share} images per "
        "device and step stay what they are, and so does the result up to rounding"
    )


def out_of_memory_elsewhere(device: torch.device, error: Exception) -> TrainingError:
    """The error for what does not fit beside the passes of a step."""
    return TrainingError(
        f"out of memory on {device} beside the passes of a step (weights, optimizer, images, evaluation): "
        f"{str(error).splitlines()[0]}. A smaller --micro-batch leaves more; so does a smaller architecture"
    )


def largest_that_fits(attempt: Callable[[int], None], failed: int) -> int:
    """The largest halving of ``failed`` for which ``attempt`` does not run out of memory; 0 if none."""
    size = failed // 2
    while size > 0:
        try:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            attempt(size)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            size //= 2
        else:
            return size
    return 0
