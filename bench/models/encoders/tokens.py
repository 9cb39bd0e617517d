"""Patch tokens of image towers: where a tower keeps them, how many there are, and what their gradient remembers."""

from dataclasses import dataclass
from typing import Any

import timm.layers
import timm.models.vision_transformer
from open_clip.timm_model import TimmModel
from open_clip.transformer import QuickGELU, VisionTransformer
from torch import nn

from bench.errors import UsageError


@dataclass(frozen=True)
class TokenFacts:
    """Of a vision transformer.

    Attributes:
        width: channels of a patch token.
        n_patches: patch tokens of an image.
        depth: blocks.
        kept: hidden elements of a block that the activation of its MLP keeps for a gradient.
    """

    width: int
    n_patches: int
    depth: int
    kept: int


def token_facts(visual: Any) -> TokenFacts:
    """What is known of the patch tokens of open_clip's own ViTs and of timm's, of which SigLIP's are some.

    Raises:
        UsageError: the tower has no patch tokens.
    """
    if isinstance(visual, VisionTransformer):
        blocks: Any = visual.transformer.resblocks
        rows, columns = visual.grid_size
        hidden = blocks[0].mlp.c_fc
        return TokenFacts(hidden.in_features, int(rows * columns), len(blocks), _kept(hidden, blocks[0].mlp.gelu))
    trunk = visual.trunk if isinstance(visual, TimmModel) else None
    if isinstance(trunk, timm.models.vision_transformer.VisionTransformer):
        mlp: Any = trunk.blocks[0].mlp
        count = int(trunk.patch_embed.num_patches)
        return TokenFacts(mlp.fc1.in_features, count, len(trunk.blocks), _kept(mlp.fc1, mlp.act))
    name = type(visual if trunk is None else trunk).__name__
    raise UsageError(
        f"this image tower ({name}) is no vision transformer, so it has no patch tokens for a vision-language model or "
        "an attack on embeddings; choose a ViT encoder (see `bench list encoders`)"
    )


def _kept(hidden: nn.Linear, activation: nn.Module) -> int:
    """QuickGELU keeps its sigmoid beside its input."""
    quick = isinstance(activation, QuickGELU | timm.layers.QuickGELU)
    return (2 if quick else 1) * hidden.out_features
