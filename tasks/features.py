"""Goals that no task decides on, on an encoder's features: away from the clean image, or towards a target."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from attacks.objective import Objective, Progress
from attacks.presets import EMBEDDING, PATCH_TOKENS, POOLED, TARGET_IMAGE, TARGET_SAID, TARGET_TEXT
from tasks.base import ImageTextEncoder, Sample, Victim
from tasks.embedding import EmbeddingDistance


class TokenDistance:
    """One minus the mean cosine of the patch tokens, which are what a vision-language model reads; never fooled.

    The loss of VEAttack (Mei et al. 2025, arXiv 2505.17440). Its gradient vanishes at the clean image: start from a
    random one.

    Args:
        encoder: whose patch tokens (b, N, W) are pushed.
        clean: (B, 3, H, W) in [0, 1].
    """

    def __init__(self, encoder: ImageTextEncoder, clean: Tensor) -> None:
        self.encoder = encoder
        with torch.no_grad():
            self.clean = encoder.patch_tokens(clean)

    def __call__(self, images: Tensor, rows: Tensor) -> Progress:
        """Score images (b, 3, H, W)."""
        alike = cosine_similarity(self.encoder.patch_tokens(images), self.clean[rows], dim=-1)
        return Progress(1 - alike.mean(1), torch.zeros_like(rows, dtype=torch.bool))


class PooledDistance:
    """Mean squared difference of the pooled embeddings; never fooled.

    The loss of the attack on Bard's image description (Dong et al. 2023, arXiv 2309.11751). Its gradient vanishes at
    the clean image: start from a random one.

    Args:
        encoder: whose embeddings (b, D) are pushed.
        clean: (B, 3, H, W) in [0, 1].
    """

    def __init__(self, encoder: ImageTextEncoder, clean: Tensor) -> None:
        self.encoder = encoder
        with torch.no_grad():
            self.clean = encoder(clean)

    def __call__(self, images: Tensor, rows: Tensor) -> Progress:
        """Score images (b, 3, H, W)."""
        loss = (self.encoder(images) - self.clean[rows]).square().mean(1)
        return Progress(loss, torch.zeros_like(rows, dtype=torch.bool))


@dataclass(frozen=True)
class TowardsImage:
    """Cosine of the pooled embeddings of images and of their targets; never fooled.

    The loss MF-ii of AttackVLM (Zhao et al. 2023, arXiv 2305.16934), and of M-Attack on whole images.

    Args:
        encoder: whose features are matched.
        targets: (B, 3, h, w) in [0, 1].
    """

    encoder: ImageTextEncoder
    targets: Tensor

    def pooled(self, images: Tensor) -> Tensor:
        """(b, 3, H, W) -> (b, D)."""
        return self.encoder(images)

    def tokens(self, images: Tensor) -> Tensor:
        """(b, 3, H, W) -> (b, N, W)."""
        return self.encoder.patch_tokens(images)

    def __call__(self, images: Tensor, rows: Tensor) -> Progress:
        """Score images (b, 3, H, W)."""
        with torch.no_grad():
            wanted = self.encoder(self.targets[rows])
        loss = cosine_similarity(self.encoder(images), wanted, dim=-1)
        return Progress(loss, torch.zeros_like(rows, dtype=torch.bool))


class TowardsText:
    """Cosine of the images' pooled embeddings and their target texts'; never fooled: MF-it of AttackVLM.

    Args:
        encoder: with the text tower.
        texts: B of them.
    """

    def __init__(self, encoder: ImageTextEncoder, texts: Sequence[str]) -> None:
        self.encoder, self.wanted = encoder, encoder.text.embed(texts)

    def __call__(self, images: Tensor, rows: Tensor) -> Progress:
        """Score images (b, 3, H, W)."""
        loss = cosine_similarity(self.encoder(images), self.wanted[rows], dim=-1)
        return Progress(loss, torch.zeros_like(rows, dtype=torch.bool))


class TowardsSaid:
    """Cosine of the embeddings of what a victim says and of target texts, without gradient: MF-tt of AttackVLM.

    Args:
        encoder: whose text tower compares.
        victim: that is asked.
        samples: B of them, with target texts.
    """

    def __init__(self, encoder: ImageTextEncoder, victim: Victim, samples: Sequence[Sample]) -> None:
        self.encoder, self.victim, self.samples = encoder, victim, samples
        self.wanted = encoder.text.embed(target_texts(samples))

    def __call__(self, images: Tensor, rows: Tensor) -> Progress:
        """Score images (b, 3, H, W); NaN where the victim gives no answer."""
        answers = self.victim.predict(images, [self.samples[row] for row in rows.tolist()])
        said = self.encoder.text.embed([answer.text for answer in answers])
        loss = cosine_similarity(said, self.wanted[rows], dim=-1)
        silent = torch.tensor([answer.error is not None for answer in answers], device=loss.device)
        return Progress(loss.masked_fill(silent, torch.nan), torch.zeros_like(rows, dtype=torch.bool))


AWAY: Mapping[str, Callable[[ImageTextEncoder, Tensor], Objective]] = {
    EMBEDDING: EmbeddingDistance,
    PATCH_TOKENS: TokenDistance,
    POOLED: PooledDistance,
}
"""Goals that lead away from what an encoder makes of the clean images (B, 3, H, W)."""


def target_texts(samples: Sequence[Sample]) -> list[str]:
    """What the targets show, in words."""
    return [sample.target.text for sample in samples if sample.target is not None]


def lacking(goal: str, sample: Sample) -> str | None:
    """What a goal needs of a sample that it has not, in words; None if nothing."""
    if goal == TARGET_IMAGE and sample.target is None:
        return "a target image"
    if goal in (TARGET_TEXT, TARGET_SAID) and (sample.target is None or not sample.target.text):
        return "a target text"
    return None
