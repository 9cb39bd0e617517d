"""The random numbers of a defence: a stream for each image, so that an answer depends on neither batch nor order."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


def stream(*parts: object) -> int:
    """The seed that stands for some names and numbers."""
    key = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(key[:8], "big") >> 1


@dataclass(frozen=True)
class Draws:
    """One draw of a randomised model for B images.

    Attributes:
        seeds: (B,) one per image; empty for models that draw nothing.
    """

    seeds: tuple[int, ...] = ()

    def of_part(self, part: object) -> "Draws":
        """Streams of their own for one part of a model."""
        return Draws(tuple(stream(seed, part) for seed in self.seeds))

    def uniform(self, like: Tensor) -> Tensor:
        """Numbers in [0, 1) for images (B, ...), in float32 from the CPU: the same on every machine."""
        return self._drawn(torch.rand, like.shape[1:], len(like)).to(like.device)

    def normal(self, like: Tensor) -> Tensor:
        """Numbers of the standard normal distribution, likewise."""
        return self._drawn(torch.randn, like.shape[1:], len(like)).to(like.device)

    def _drawn(self, draw: Callable[..., Tensor], shape: Sequence[int], count: int) -> Tensor:
        if len(self.seeds) != count:
            raise ValueError(f"{count} images, but streams of random numbers for {len(self.seeds)}")
        return torch.stack([draw(tuple(shape), generator=torch.Generator().manual_seed(s)) for s in self.seeds])


NOTHING_DRAWN = Draws()
