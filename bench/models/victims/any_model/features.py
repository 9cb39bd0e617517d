"""What a language model reads of an image, as the tasks see an encoder."""

from typing import Any, Protocol

import torch
from torch import Tensor

from bench.errors import UsageError


class HasImages(Protocol):
    """What is needed of a model."""

    model: Any

    def image_inputs(self, images: Tensor) -> dict[str, Tensor]:
        """What the model is given of images (B, 3, H, W) in [0, 1]."""

    def at(self, precision: str) -> Any:
        """The same model in another precision."""


class Features:
    """The image features of a model, before its language model reads them."""

    def __init__(self, owner: HasImages) -> None:
        self.owner = owner

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, W) float32: the mean over an image's tokens."""
        return self.patch_tokens(images).mean(1)

    def patch_tokens(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, N, W) float32.

        Raises:
            UsageError: the model does not give its image features.
        """
        read = getattr(self.owner.model, "get_image_features", None)
        if read is None:
            kind = type(self.owner.model).__name__
            raise UsageError(f"{kind} does not give its image features; choose an attack on answers")
        found = read(**self.owner.image_inputs(images))
        found = getattr(found, "pooler_output", found)
        if isinstance(found, list | tuple):
            found = torch.cat([part.reshape(-1, part.shape[-1]) for part in found])
        tokens: Tensor = found.reshape(len(images), -1, found.shape[-1]).float()
        return tokens

    def at(self, precision: str) -> "Features":
        """The features that the model has in another precision."""
        return Features(self.owner.at(precision))
