"""What samples are to be taken for: target images, and a victim's own captions of them."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from attacks.presets import TARGET_IMAGE
from bench.config import RunConfig
from bench.data.bank import Images
from bench.data.images import open_image
from bench.errors import UsageError
from tasks.base import Sample, Task, Victim


def target_images(task: Task, seen: Callable[[Any], Tensor], config: RunConfig, device: torch.device) -> Images | None:
    """The target images as an encoder sees them, where the attack leads to any."""
    if not any(step.goal == TARGET_IMAGE for step in config.steps):
        return None
    return Images(_look(task.dataset.samples, seen), device)


def with_own_captions(task: Task, victim: Victim, seen: Callable[[Any], Tensor], device: torch.device) -> Task:
    """The task with the victim's own captions of the targets, if it compares with those; others as they are.

    Raises:
        UsageError: the victim has no caption of a target.
    """
    settled = getattr(task, "settled", None)
    if settled is None:
        return task
    try:
        return cast(Task, settled(victim, lambda samples: _look(samples, seen).to(device)))
    except ValueError as error:
        raise UsageError(str(error)) from error


def _look(samples: Sequence[Sample], seen: Callable[[Any], Tensor]) -> Tensor:
    """(b, 3, H, W) of the samples' targets."""
    return torch.stack([seen(open_image(sample.target.image)) for sample in samples if sample.target is not None])
