"""An attack that needs no task: away from what an encoder says of the clean image."""

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from attacks.objective import Progress
from tasks.base import ImageTextEncoder


class EmbeddingDistance:
    """Cosine distance of the pooled embedding, plus the mean of that of the patch tokens; never fooled.

    The idea of attacking a vision-language model through its encoder's tokens alone is that of VEAttack
    (arXiv 2505.17440). The gradient vanishes at the clean image: start from a random one.

    Args:
        encoder: whose embeddings (b, D) and patch tokens (b, N, W) are pushed.
        clean: (B, 3, H, W) in [0, 1].
    """

    def __init__(self, encoder: ImageTextEncoder, clean: Tensor) -> None:
        self.encoder = encoder
        with torch.no_grad():
            self.pooled = encoder(clean)
            self.tokens = encoder.patch_tokens(clean)

    def __call__(self, images: Tensor, rows: Tensor) -> Progress:
        """Score images (b, 3, H, W)."""
        pooled = 1 - cosine_similarity(self.encoder(images), self.pooled[rows], dim=-1)
        tokens = 1 - cosine_similarity(self.encoder.patch_tokens(images), self.tokens[rows], dim=-1)
        return Progress(pooled + tokens.mean(dim=1), torch.zeros_like(rows, dtype=torch.bool))
