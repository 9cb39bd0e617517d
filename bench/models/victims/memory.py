"""How many bytes an attack on a vision-language model needs, said before it starts; see each family for its count."""

import sys
from dataclasses import dataclass
from typing import Protocol

import torch
from tqdm import tqdm

from bench.errors import UsageError

GB = 1e9
WORTH_SAYING = GB  # smaller needs are not announced
MARGIN = 1.1  # fragmentation, kernels' workspaces


@dataclass(frozen=True)
class Need:
    """Bytes: of weights, of what one batch keeps for its gradient, and of what comes and goes beside it."""

    weights: int
    activations: int
    passing: int

    @property
    def beside_weights(self) -> int:
        """What must be free once the weights are loaded."""
        return round(MARGIN * (self.activations + self.passing))

    @property
    def total(self) -> int:
        """Everything."""
        return self.weights + self.beside_weights


class Weighed(Protocol):
    """A model that knows what an attack on it needs, and can do with less."""

    def need(self, batch: int, *, checkpointing: bool) -> Need:
        """What one attack step on ``batch`` images needs, with or without activation checkpointing."""

    def checkpoint_activations(self) -> None:
        """Trade time for memory from now on."""


def largest_batch(model: Weighed, free: int, *, checkpointing: bool) -> int:
    """The largest batch whose need beside the weights fits into ``free`` bytes; 0 if none does."""
    fixed, two = (model.need(n, checkpointing=checkpointing).beside_weights for n in (1, 2))
    if fixed > free:
        return 0
    found = 1 + int((free - fixed) // (two - fixed))
    return found + (model.need(found + 1, checkpointing=checkpointing).beside_weights <= free)  # bytes were rounded


def check_weights(model: Weighed, device: torch.device) -> None:
    """Refuse a model whose weights alone are larger than what is free.

    Raises:
        UsageError: so it is; says how much is needed and how much there is.
    """
    if device.type != "cuda":
        return
    free, _ = torch.cuda.mem_get_info(device)
    need = model.need(1, checkpointing=True).weights
    if need > free:
        raise UsageError(
            f"the model's weights need {need / GB:.1f} GB, {device} has {free / GB:.1f} GB free; use a larger device, "
            "or a checkpoint stored in half precision"
        )


def make_room(model: Weighed, batch: int | None, device: torch.device) -> str:
    """Say what an attack will need, turn activation checkpointing on if only that makes it fit, or refuse.

    Args:
        model: already on the device.
        batch: images attacked together; None where the run finds its own batch size: one must fit then.
        device: only a CUDA device is held to what it has.

    Returns:
        The line that was announced (models that need little are not worth one: then it is not shown).

    Raises:
        UsageError: the batch does not fit; names one that does.
    """
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
    line = plan(model, batch, free)
    if model.need(1, checkpointing=False).weights > WORTH_SAYING:
        tqdm.write(line, file=sys.stderr)
    return line


def plan(model: Weighed, batch: int | None, free: int | None) -> str:
    """As `make_room`, for ``free`` bytes beside the weights; None if that is not known."""
    asked = batch or 1
    plain = model.need(asked, checkpointing=False)
    if free is None or plain.beside_weights <= free:
        return _words(asked, plain, "")
    saving = model.need(asked, checkpointing=True)
    fits = largest_batch(model, free, checkpointing=True)
    if saving.beside_weights > free:
        remedy = f"use --batch-size {fits}" if fits else "use a larger device or --precision bf16"
        raise UsageError(
            f"{_words(asked, saving, ' even with activation checkpointing')}, but {free / GB:.1f} GB are free beside "
            f"the weights; {remedy}"
        )
    model.checkpoint_activations()
    return _words(asked, saving, " with activation checkpointing, which is on")


def _words(batch: int, need: Need, how: str) -> str:
    return (
        f"an attack on {batch} image{'s' if batch > 1 else ''} at a time needs about {need.total / GB:.1f} GB{how} "
        f"({need.weights / GB:.1f} GB of them weights)"
    )
