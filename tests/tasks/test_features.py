"""Losses on an encoder's features, by hand: an encoder whose patch tokens are the pixels, its embedding their mean."""

import pytest
import torch
from torch import Tensor

from tasks.features import PooledDistance, TokenDistance

ROWS = torch.tensor([1, 0])
CLEAN = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0], [0.0, 0.6, 0.8]]])  # (image, token, width)


class Pixels:
    """Tokens (B, H W, 3) are the pixels; the embedding (B, 3) is their mean."""

    def patch_tokens(self, images: Tensor) -> Tensor:
        return images.flatten(2).transpose(1, 2)

    def __call__(self, images: Tensor) -> Tensor:
        return self.patch_tokens(images).mean(1)


def image(tokens: Tensor) -> Tensor:
    """Images (B, 3, 1, N) with these tokens (B, N, 3)."""
    return tokens.transpose(1, 2).unsqueeze(2)


def test_token_distance_is_one_minus_the_mean_cosine_of_tokens() -> None:
    # row 1 held against the second clean image: one token turned by a right angle, one with a cosine of 0.8, twice as
    # long; row 0 against the first: both as they were, scaled, which a cosine does not see
    moved = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 0.0, 2.0]], [[3.0, 0.0, 0.0], [0.0, 0.5, 0.0]]])
    progress = TokenDistance(Pixels(), image(CLEAN))(image(moved), ROWS)
    assert progress.loss.tolist() == pytest.approx([1 - (0 + 0.8) / 2, 0.0], abs=1e-6)
    assert not progress.fooled.any()


def test_token_distance_looks_at_each_token_not_at_their_mean() -> None:
    swapped = CLEAN.flip(1)  # the same mean, other places
    progress = TokenDistance(Pixels(), image(CLEAN))(image(swapped), torch.arange(2))
    assert progress.loss.tolist() == pytest.approx([1.0, 1 - 0.8], abs=1e-6)
    assert PooledDistance(Pixels(), image(CLEAN))(image(swapped), torch.arange(2)).loss.abs().max() == 0


def test_pooled_distance_is_the_mean_squared_difference() -> None:
    moved = CLEAN[ROWS] + torch.tensor([0.3, 0.0, -0.6])
    progress = PooledDistance(Pixels(), image(CLEAN))(image(moved), ROWS)
    assert progress.loss.tolist() == pytest.approx([(0.09 + 0.36) / 3] * 2, abs=1e-6)
    assert not progress.fooled.any()


def test_token_gradient_leads_away_from_the_clean_tokens() -> None:
    tokens = torch.tensor([[[1.0, 0.2, 0.0], [0.0, 1.0, 0.0]]], requires_grad=True)
    TokenDistance(Pixels(), image(CLEAN[:1]))(image(tokens), torch.arange(1)).loss.sum().backward()
    gradient = tokens.grad[0]
    # d(1 - x / sqrt(x^2 + y^2)) / d(x, y) = (-y^2, x y) / (x^2 + y^2)^1.5, and half of it, for there are two tokens
    length = (1 + 0.04) ** 1.5
    assert gradient[0].tolist() == pytest.approx([-0.04 / length / 2, 0.2 / length / 2, 0.0], abs=1e-6)
    assert gradient[1].abs().max() < 1e-6  # at the clean token the loss is at its least
