"""What an attack on any model needs of memory: measured by one step on one image, for nothing is known of the model."""

from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from bench.models.encoders.stored import recompute_blocks
from bench.models.victims.memory import Need

SIDE = 448  # pixels of the image that is tried, unless --image-size says otherwise
QUESTION, ANSWER = "What is in the image, and where?", "I do not know."


class Tried(Protocol):
    """A model that can be tried."""

    model: Any

    @property
    def device(self) -> torch.device:
        """Where it lies."""

    @property
    def image_size(self) -> int | None:
        """Pixels of an image's longer side, where that is chosen."""

    def parameters(self) -> Any:
        """Of the model."""

    def answers(self, prompts: list[str], answers: list[str]) -> Any:
        """See `tasks.base.VisionLanguageModel.answers`."""


class Measured:
    """Bytes that one attack step on one image takes, found out when they are asked for."""

    def __init__(self, owner: Tried) -> None:
        self._owner = owner
        self._step = cache(self._measure)

    def need(self, batch: int, *, checkpointing: bool) -> Need:
        """For a batch: as many times what one image takes."""
        weights = sum(p.numel() * p.element_size() for p in self._owner.parameters())
        return Need(weights, batch * self._step(checkpointing), 0)

    def _measure(self, checkpointing: bool) -> int:
        blocks = [b for b in self._owner.model.modules() if isinstance(b, GradientCheckpointingLayer)]
        bare = [block for block in blocks if "forward" not in vars(block)]
        if checkpointing:
            recompute_blocks(self._owner.model)
        try:
            return self._one_step()
        finally:
            for block in bare if checkpointing else ():
                del block.forward

    def _one_step(self) -> int:
        """On a CUDA device the peak, as measured there; elsewhere what is kept for the backward pass."""
        owner = self._owner
        side = owner.image_size or SIDE
        image = torch.full((1, 3, side, side), 0.5, device=owner.device, requires_grad=True)
        loss = owner.answers([QUESTION], [ANSWER])
        rows = torch.zeros(1, dtype=torch.long, device=owner.device)
        if owner.device.type != "cuda":
            return kept_bytes(lambda: loss(image, rows).nll, owner.model)
        torch.cuda.reset_peak_memory_stats(owner.device)
        before = torch.cuda.memory_allocated(owner.device)
        torch.autograd.grad(loss(image, rows).nll.sum(), image)
        return torch.cuda.max_memory_allocated(owner.device) - before


def kept_bytes(forward: Any, model: nn.Module) -> int:
    """Bytes that a forward pass keeps for its gradient, parameters and buffers aside."""
    known = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    del result
    return sum(kept.values())
