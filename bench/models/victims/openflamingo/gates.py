"""Gated cross-attention: how text looks at the images before it (Alayrac et al. 2022, arXiv 2204.14198, section 2.4).

What is seen does not pass through the language model's own arguments, which differ from model to model; it is set
for the time of one forward pass by `seeing`, apart for each thread.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from bench.models.victims.openflamingo.perceiver import attend, feed_forward


@dataclass(frozen=True)
class Sight:
    """What a batch of texts sees.

    Attributes:
        latents: (b, T, L, D) of T images each, in the precision of the language model.
        seen: (b, S) int64: which of them, from 1 on, each token attends to; 0 for none.
    """

    latents: Tensor
    seen: Tensor

    @cached_property
    def keys(self) -> Tensor:
        """(b, T L, D): the latents of all images in a row."""
        return self.latents.flatten(1, 2)

    @cached_property
    def allowed(self) -> Tensor:
        """(b, 1, S, T L) bool. Tokens without an image are let see all; what they see is dropped afterwards."""
        images = torch.arange(1, self.latents.shape[1] + 1, device=self.seen.device)
        images = images.repeat_interleave(self.latents.shape[2])
        own = self.seen[:, :, None]
        return ((own == images) | (own == 0))[:, None]

    @cached_property
    def sighted(self) -> Tensor:
        """(b, S, 1) bool: tokens with an image."""
        return self.seen[:, :, None] > 0


_SIGHT: ContextVar[Sight] = ContextVar("sight")


@contextmanager
def seeing(sight: Sight) -> Iterator[None]:
    """Let the gated layers of a language model see this, while its forward pass runs inside."""
    token = _SIGHT.set(sight)
    try:
        yield
    finally:
        _SIGHT.reset(token)


class CrossAttention(nn.Module):
    """Text attends to latents, which are not normalised once more."""

    def __init__(self, width: int, media: int, inner: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(media, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)

    def forward(self, hidden: Tensor, latents: Tensor, allowed: Tensor, sighted: Tensor) -> Tensor:
        """(b, S, E), (b, K, D), and masks as of `Sight` -> (b, S, E)."""
        keys, values = self.to_kv(latents).chunk(2, dim=-1)
        found: Tensor = self.to_out(attend(self.to_q(self.norm(hidden)), keys, values, allowed) * sighted)
        return found


class GatedBlock(GradientCheckpointingLayer):  # type: ignore[no-untyped-call]
    """Cross-attention and a feed-forward layer, each behind tanh of a learned number that begins at zero.

    The feed-forward half acts on every token, also on those that see no image.
    """

    def __init__(self, width: int, media: int, *, inner: int = 512, hidden: int = 0) -> None:
        super().__init__()
        self.attn = CrossAttention(width, media, inner)
        self.attn_gate = nn.Parameter(torch.zeros(1))
        self.ff = feed_forward(width, hidden or 4 * width)
        self.ff_gate = nn.Parameter(torch.zeros(1))

    def forward(self, hidden: Tensor, latents: Tensor, allowed: Tensor, sighted: Tensor) -> Tensor:
        """(b, S, E), (b, K, D), and masks as of `Sight` -> (b, S, E)."""
        found: Tensor = self.attn(hidden, latents, allowed, sighted)
        hidden = found * self.attn_gate.to(hidden.dtype).tanh() + hidden
        found = self.ff(hidden)
        return found * self.ff_gate.to(hidden.dtype).tanh() + hidden


class GatedLayer(nn.Module):
    """A gated block before a layer of the language model; names are those of the released checkpoints."""

    def __init__(self, gate: GatedBlock, layer: nn.Module) -> None:
        super().__init__()
        self.gated_cross_attn_layer = gate
        self.decoder_layer = layer

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        """As the language model's layer, with whatever arguments that takes."""
        sight = _SIGHT.get()
        hidden = self.gated_cross_attn_layer(hidden, sight.keys, sight.allowed, sight.sighted)
        return self.decoder_layer(hidden, *args, **kwargs)
