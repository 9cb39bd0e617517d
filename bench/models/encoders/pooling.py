"""The pooled embedding of a vision transformer, with its last block computed at the class token only.

Nothing else of the last block is read: its other tokens serve as keys and values. Where images are attacked, and where
towers are trained on embeddings, that saves most of a block in every pass.
"""

from typing import Any, cast

import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from bench.models.encoders.attention import FoldedAttention


def pools_class_token(visual: nn.Module) -> bool:
    """Whether a tower's embedding comes from the class token alone, through blocks that can be asked for one token."""
    if not isinstance(visual, VisionTransformer) or visual.pool_type != "tok" or visual.attn_pool is not None:
        return False
    last = visual.transformer.resblocks[-1]
    plain = type(visual) is VisionTransformer and not visual.output_tokens and len(visual.transformer.resblocks) > 1
    return plain and type(last) is ResidualAttentionBlock and isinstance(last.attn, FoldedAttention)


def embedding_of(visual: Any, pixels: Tensor) -> Tensor:
    """What a tower that `pools_class_token` makes of normalised pixels (b, 3, H, W): (b, D), as ``visual(pixels)``."""
    block = len(visual.transformer.resblocks) - 2
    found = visual.forward_intermediates(
        pixels, indices=[block], stop_early=True, intermediates_only=True, output_fmt="NLC", output_extra_tokens=True
    )
    (token,), (patches,) = found["image_intermediates_prefix"], found["image_intermediates"]
    last = visual.transformer.resblocks[-1]
    seen = last.ln_1(torch.cat([token, patches], dim=1))
    token = token + last.ls_1(last.attention(seen[:, :1], seen, seen))
    token = token + last.ls_2(last.mlp(last.ln_2(token)))
    pooled = visual.ln_post(token[:, 0])
    return cast(Tensor, pooled if visual.proj is None else pooled @ visual.proj)
