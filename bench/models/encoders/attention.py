"""Attention of open_clip's image towers, computed so that an attack on frozen weights costs no more than it must."""

from typing import TypeGuard

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F

from bench.models.encoders.exchange import exchange
from bench.models.encoders.short_attention import attend


class FoldedAttention(nn.Module):
    """Self-attention whose projections see contiguous tokens; parameters and their names are torch's own.

    torch gives its input projection a transposed view. With frozen weights, as in an attack, torch's matmul does not
    fold that into one matrix but multiplies position by position: half of the time of an attack step on a ViT-B/32.
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.num_heads = attention.num_heads
        self.in_proj_weight = attention.in_proj_weight
        self.in_proj_bias = attention.in_proj_bias
        self.out_proj = attention.out_proj

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, need_weights: bool = False, attn_mask: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """Tokens (b, N, W), the same three times, as open_clip's blocks pass them -> (b, N, W).

        Or queries (b, Q, W) among the tokens, which are passed as key and as value -> (b, Q, W).
        """
        if query is key:
            q, k, v = self._heads(F.linear(query, self.in_proj_weight, self.in_proj_bias), 3)
        else:
            width, weight, bias = query.shape[-1], self.in_proj_weight, self.in_proj_bias
            of_query, of_others = (None, None) if bias is None else (bias[:width], bias[width:])
            (q,) = self._heads(F.linear(query, weight[:width], of_query), 1)
            k, v = self._heads(F.linear(key, weight[width:], of_others), 2)
        seen = attend(q, k, v) if attn_mask is None else F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        return self.out_proj(seen.transpose(1, 2).reshape(query.shape)), None

    def _heads(self, projected: Tensor, number: int) -> Tensor:
        """(b, N, number W) -> (number, b, heads, N, W / heads)."""
        batch, count = projected.shape[:2]
        return projected.view(batch, count, number, self.num_heads, -1).permute(2, 0, 3, 1, 4)

    def plain(self) -> nn.MultiheadAttention:
        """An attention of torch's own with the same parameters."""
        bias = self.in_proj_bias is not None
        with torch.device("meta"):
            attention = nn.MultiheadAttention(len(self.out_proj.weight), self.num_heads, bias=bias, batch_first=True)
        attention.in_proj_weight, attention.in_proj_bias = self.in_proj_weight, self.in_proj_bias
        attention.out_proj = self.out_proj
        return attention.train(self.training)


def fold_attention(tower: nn.Module) -> None:
    """Let an open_clip ViT compute its attention as `FoldedAttention` does: the same but for rounding.

    Blocks of other kinds stay as they are.
    """
    for block in tower.modules():
        if type(block) is ResidualAttentionBlock and not hasattr(block, "ln_1_kv"):
            exchange(block, lambda m: FoldedAttention(m).train(m.training) if _is_plain(m) else None)


def unfold_attention(tower: nn.Module) -> None:
    """Undo `fold_attention`, for comparisons with plain torch."""
    exchange(tower, lambda module: module.plain() if isinstance(module, FoldedAttention) else None)


def _is_plain(attention: nn.Module) -> TypeGuard[nn.MultiheadAttention]:
    return (
        type(attention) is nn.MultiheadAttention
        and attention.batch_first
        and attention.in_proj_weight is not None
        and attention.dropout == 0
        and attention.bias_k is None
        and not attention.add_zero_attn
    )
