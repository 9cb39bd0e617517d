"""Attention of open_clip's image towers, computed so that an attack on frozen weights costs no more than it must."""

from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F


class FoldedAttention(nn.MultiheadAttention):
    """Self-attention whose projections see contiguous tokens; parameters and their names are torch's own.

    torch gives its input projection a transposed view. With frozen weights, as in an attack, torch's matmul does not
    fold that into one matrix but multiplies position by position: half of the time of an attack step on a ViT-B/32.
    """

    def forward(  # type: ignore[override]  # what open_clip's blocks pass
        self, query: Tensor, key: Tensor, value: Tensor, *, need_weights: bool = False, attn_mask: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """Tokens (b, N, W), the same three times -> (b, N, W)."""
        batch, count, width = query.shape
        projected = F.linear(query, self.in_proj_weight, self.in_proj_bias)
        q, k, v = projected.view(batch, count, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        return self.out_proj(seen.transpose(1, 2).reshape(batch, count, width)), None


def fold_attention(tower: nn.Module) -> None:
    """Let an open_clip ViT compute its attention as `FoldedAttention` does: the same but for rounding.

    Blocks of other kinds stay as they are.
    """
    for block in tower.modules():
        if type(block) is ResidualAttentionBlock and _is_plain(block.attn) and not hasattr(block, "ln_1_kv"):
            block.attn.__class__ = FoldedAttention


def _is_plain(attention: object) -> bool:
    return (
        type(attention) is nn.MultiheadAttention and attention.batch_first and attention._qkv_same_embed_dim
        and attention.dropout == 0 and attention.bias_k is None and not attention.add_zero_attn
    )  # fmt: skip
