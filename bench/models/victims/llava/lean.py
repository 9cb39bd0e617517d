"""A Llama that is attacked, not trained: the same numbers but for rounding, with less done for each of them.

Its weights are frozen, and of its last block little is read: a norm needs no gradient of its weight, attention over few
tokens takes `bench.models.encoders.short_attention`, and the last block answers for the tokens that are read alone.
All by transformers' own doors: registered attention, a cache, and modules in the place of others.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.models.llama.modeling_llama import LlamaModel, LlamaRMSNorm, rotate_half

from bench.models.encoders.exchange import exchange
from bench.models.encoders.short_attention import attend
from bench.models.victims import prefix

SHORT_ATTENTION = "bench_short"


class FrozenNorm(nn.Module):
    """A Llama's root-mean-square norm, whose weight gets no gradient and keeps its name."""

    def __init__(self, norm: LlamaRMSNorm) -> None:
        super().__init__()
        self.weight, self.eps = norm.weight, norm.variance_epsilon

    def forward(self, x: Tensor) -> Tensor:
        """(..., H) -> (..., H)."""
        return cast(Tensor, _Normed.apply(x, self.weight, self.eps))


class _Normed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
        ctx.save_for_backward(x, weight, scale)
        return weight * (wide * scale).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        x, weight, scale = ctx.saved_tensors
        g, wide = gradient.float() * weight, x.float()
        along = (g * wide).mean(-1, keepdim=True)
        return g.addcmul_(wide, along * scale.square(), value=-1).mul_(scale).to(x.dtype), None, None


def make_lean(model: Any) -> None:
    """Let the language model of a LLaVA with frozen weights compute as said above."""
    exchange(model, lambda module: FrozenNorm(module) if type(module) is LlamaRMSNorm else None)
    model.set_attn_implementation({"text_config": SHORT_ATTENTION})


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attention as transformers' models ask for it; what `read_last` asks for goes the short way."""
    biased = attention_mask is not None and attention_mask.dtype == query.dtype
    scaled = kwargs.get("scaling") in (None, query.shape[-1] ** -0.5)
    if biased and scaled and key.shape[1] == query.shape[1]:
        return attend(query, key, value, attention_mask).transpose(1, 2), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


AttentionInterface.register(SHORT_ATTENTION, _attention)
AttentionMaskInterface.register(SHORT_ATTENTION, sdpa_mask)


def can_read_last(model: nn.Module) -> bool:
    """Whether a language model is a Llama, whose blocks are known."""
    return type(model) is LlamaModel


def read_last(
    model: Any, embedded: Tensor, mask: Tensor, positions: Tensor, states: prefix.States, count: int
) -> Tensor:
    """Last hidden states (B, count, H) of the last tokens of sequences.

    Args:
        model: a Llama; see `can_read_last`.
        embedded: (B, T, H).
        mask: (B, P + T) 1 for a token, 0 for padding.
        positions: (B, T).
        states: keys and values of P tokens in front; empty if P is 0.
        count: tokens to read.
    """
    *blocks, last = model.layers
    name = prefix.cache_argument(type(last).forward)
    cos, sin = model.rotary_emb(embedded, positions)
    bias, hidden = _bias(mask, embedded), embedded
    # Each block gets its own layer of the cache in the place of the cache: one compiled block then serves them all.
    fronts: Sequence[prefix.FixedLayer | None]
    fronts = [prefix.FixedLayer(*front) for front in states] or [None] * len(model.layers)
    for block, front in zip(blocks, fronts[:-1], strict=True):
        hidden = block(hidden, attention_mask=bias, position_embeddings=(cos, sin), **{name: front})
    others = _keys_and_values(last, hidden[:, :-count], cos[:, :-count], sin[:, :-count])
    if fronts[-1] is not None:
        others = fronts[-1].update(*others)
    read = last(
        hidden[:, -count:],
        attention_mask=bias[:, :, -count:],
        position_embeddings=(cos[:, -count:], sin[:, -count:]),
        **{name: prefix.FixedLayer(*others)},
    )
    return cast(Tensor, model.norm(read))


def _keys_and_values(block: Any, hidden: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values (B, heads, T, D) of a block for what goes into it, (B, T, H)."""
    normed, attention = block.input_layernorm(hidden), block.self_attn
    shape = (*hidden.shape[:2], -1, attention.head_dim)
    key, value = (project(normed).view(shape).transpose(1, 2) for project in (attention.k_proj, attention.v_proj))
    turned: Tensor = rotate_half(key)  # type: ignore[no-untyped-call, unused-ignore]
    return key * cos[:, None] + turned * sin[:, None], value


def _bias(mask: Tensor, embedded: Tensor) -> Tensor:
    """(B, 1, T, P + T): 0 where a token sees another, else the least number."""
    places = torch.arange(mask.shape[1], device=mask.device)
    seen = mask[:, None, None].bool() & (places <= places[-embedded.shape[1] :, None])
    return torch.zeros_like(seen, dtype=embedded.dtype).masked_fill_(~seen, torch.finfo(embedded.dtype).min)
