"""The perceiver resampler: any number of patch tokens of an image become a fixed number of latents.

Names of parameters are those of the released checkpoints (Alayrac et al. 2022, arXiv 2204.14198, appendix A.1.1; the
time embedding that they describe is not part of OpenFlamingo).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEAD = 64  # channels of an attention head, whatever the width around it


def attend(queries: Tensor, keys: Tensor, values: Tensor, allowed: Tensor | None = None) -> Tensor:
    """Attention with heads of `HEAD` channels.

    Args:
        queries: (b, Q, C).
        keys: (b, K, C).
        values: (b, K, C).
        allowed: (b, 1, Q, K) bool; None for everywhere. Each query needs one key at least.

    Returns:
        (b, Q, C).
    """
    q, k, v = (x.view(*x.shape[:2], -1, HEAD).transpose(1, 2) for x in (queries, keys, values))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed).transpose(1, 2).flatten(2)


def feed_forward(width: int, hidden: int) -> nn.Sequential:
    """Norm and a GELU layer without biases, as the perceiver and the gated blocks have it."""
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, hidden, bias=False), nn.GELU(), nn.Linear(hidden, width, bias=False)
    )


class PerceiverAttention(nn.Module):
    """Latents attend to an image's tokens and to themselves."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.norm_media = nn.LayerNorm(width)
        self.norm_latents = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)

    def forward(self, tokens: Tensor, latents: Tensor) -> Tensor:
        """(b, N, D), (b, L, D) -> (b, L, D)."""
        latents = self.norm_latents(latents)
        keys, values = self.to_kv(torch.cat([self.norm_media(tokens), latents], dim=1)).chunk(2, dim=-1)
        found: Tensor = self.to_out(attend(self.to_q(latents), keys, values))
        return found


class Perceiver(nn.Module):
    """Patch tokens (b, N, D) -> latents (b, L, D).

    Args:
        width: D, of the image encoder.
        latents: L.
        depth: layers.
        inner: channels of all attention heads together.
        hidden: channels of the feed-forward layers.
    """

    def __init__(self, width: int, *, latents: int = 64, depth: int = 6, inner: int = 512, hidden: int = 0) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(latents, width))
        self.layers = nn.ModuleList(
            nn.ModuleList([PerceiverAttention(width, inner), feed_forward(width, hidden or 4 * width)])
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Each image on its own."""
        latents: Tensor = self.latents.to(tokens.dtype).expand(len(tokens), -1, -1)
        for layer in self.layers:
            attention, ff = layer.children()
            latents = attention(tokens, latents) + latents
            latents = ff(latents) + latents
        normed: Tensor = self.norm(latents)
        return normed
