"""Smoothing of features: the mean embedding of noisy copies of the image."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from bench.errors import UsageError
from bench.models.defences.base import Defence, See
from bench.models.defences.draws import Draws


@dataclass(frozen=True)
class Smooth(Defence):
    """The mean of the unit embeddings of noisy copies (as in Salman et al. 2020, arXiv 2003.01908, on features)."""

    sigma: float = 8.0
    copies: int = 4

    about: ClassVar[str] = "smoothing of features: mean embedding of noisy copies; options sigma in 1/255, copies"
    randomised: ClassVar[bool] = True
    own_gradient: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.copies < 1 or self.sigma < 0:
            raise UsageError(f"smooth: copies must be at least 1 and sigma at least 0, not {self.copies}, {self.sigma}")

    def embed(self, images: Tensor, see: See, draws: Draws) -> Tensor:
        """A mean of unit vectors, (B, D)."""
        copies = [images + self.sigma / 255 * draws.of_part(number).normal(images) for number in range(self.copies)]
        return torch.stack([normalize(see(copy), dim=-1) for copy in copies]).mean(0)

    def surrogate(self, images: Tensor, see: See, draws: Draws) -> Tensor:
        """Its own gradient is exact."""
        return self.embed(images, see, draws)
