"""Threat models: which images an attacker may show, as a ball around the clean image cut with the pixel box.

Everything here works on float32 images of shape (B, 3, H, W) in [0, 1], before any mean/std normalisation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

Norm = Literal["linf", "l2"]

PIXEL_ULP = 2.0**-23
"""Rounding allowed per pixel when a ball is checked: one unit in the last place of the float32 number 1.0."""


@dataclass(frozen=True)
class ThreatModel:
    """A norm ball of radius `eps` around a clean image, cut with [0, 1].

    Args:
        norm: "linf" or "l2", taken over all channels and pixels of one image.
        eps: radius in pixel units of [0, 1]: 4/255, not 4.

    Raises:
        ValueError: unknown norm; eps negative, not finite, or above 1 for "linf" (wider than the pixel box).
    """

    norm: Norm
    eps: float

    def __post_init__(self) -> None:
        if self.norm not in get_args(Norm):
            raise ValueError(f"norm must be one of {get_args(Norm)}, got {self.norm!r}")
        if not (math.isfinite(self.eps) and self.eps >= 0):
            raise ValueError(f"eps must be a finite number >= 0, got {self.eps!r}")
        if self.norm == "linf" and self.eps > 1:
            raise ValueError(f"eps is in pixel units of [0, 1]: got {self.eps!r}, meant {self.eps}/255?")

    def box(self, clean: Tensor) -> tuple[Tensor, Tensor]:
        """Lowest and highest pixels (B, 3, H, W) of the allowed images around `clean`, for `project`."""
        if self.norm == "linf":
            return (clean - self.eps).clamp_(min=0.0), (clean + self.eps).clamp_(max=1.0)
        return torch.zeros_like(clean), torch.ones_like(clean)

    def project(self, candidate: Tensor, clean: Tensor, box: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Move candidates (B, 3, H, W) into the ball around `clean`, then into [0, 1].

        Who projects often computes `box` once.

        >>> ThreatModel("linf", 0.25).project(torch.tensor([[[[0.9]]]]), torch.tensor([[[[0.5]]]]))
        tensor([[[[0.7500]]]])

        The second move stays in the ball: clean pixels lie in [0, 1], so clamping brings every pixel nearer.
        An l2 candidate that already lies inside is returned bit for bit.
        """
        lower, upper = self.box(clean) if box is None else box
        if self.norm == "linf":
            return torch.clamp(candidate, lower, upper)
        delta = candidate - clean
        length = _length(delta)
        scaled = clean + delta * (self.eps / length.clamp_min(_TINY))
        return torch.clamp(torch.where(length > self.eps, scaled, candidate), lower, upper)

    def steepest(self, gradient: Tensor) -> Tensor:
        """The direction (B, 3, H, W) of unit norm in which a loss with this gradient grows fastest.

        The sign for linf, the gradient over its length for l2; zero where the whole gradient is zero. The l2
        length is taken after scaling by the largest entry, so that gradients near underflow keep a direction.

        >>> ThreatModel("l2", 1.0).steepest(torch.tensor([[[[3.0, -4.0]]]]))
        tensor([[[[ 0.6000, -0.8000]]]])
        """
        if self.norm == "linf":
            return gradient.sign()
        scaled = gradient / gradient.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(_TINY)
        return scaled / _length(scaled).clamp_min(_TINY)

    def random_start(self, clean: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """A random image (B, 3, H, W) of the ball around each clean image, then clamped to [0, 1].

        The habit of AutoAttack (Croce & Hein 2020, arXiv 2003.01690, released code): for linf, uniform noise
        scaled so that its largest entry is exactly eps; for l2, a Gaussian direction scaled to length eps.

        Args:
            clean: (B, 3, H, W) in [0, 1].
            generators: one per sample, so that a start depends on neither batch size nor order. Noise is drawn
                on the generator's device: CPU generators give the same starts on every machine.

        Raises:
            ValueError: the number of generators is not B.
        """
        if len(generators) != len(clean):
            raise ValueError(f"one generator per sample: got {len(generators)} for {len(clean)} images")
        if not generators:
            return clean.clone()
        noise = torch.stack([self._noise(clean.shape[1:], generator) for generator in generators])
        return self.project(clean + self.eps * noise.to(clean.device), clean)

    def _noise(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """Noise of unit norm for one image, drawn on the generator's device."""
        if self.norm == "linf":
            uniform = 2 * torch.rand(shape, generator=generator, device=generator.device) - 1
            return uniform / uniform.abs().max()
        gaussian = torch.randn(shape, generator=generator, device=generator.device)
        length: Tensor = torch.linalg.vector_norm(gaussian)
        return gaussian / length

    def distance(self, candidate: Tensor, clean: Tensor) -> Tensor:
        """Distance (B,) of each candidate from its clean image in this norm, pixel units, in float32.

        >>> ThreatModel("l2", 1.0).distance(torch.tensor([[[[3.0, 4.0]]]]), torch.zeros(1, 1, 1, 2))
        tensor([5.])

        Raises:
            ValueError: the two shapes differ (broadcasting would hide a mix-up).
        """
        if candidate.shape != clean.shape:
            raise ValueError(f"shapes differ: {tuple(candidate.shape)} and {tuple(clean.shape)}")
        delta = candidate.float() - clean.float()
        return delta.abs().amax(dim=(1, 2, 3)) if self.norm == "linf" else _length(delta).flatten()

    def contains(self, candidate: Tensor, clean: Tensor) -> Tensor:
        """Whether each candidate is an allowed image (B,) bool: finite, in [0, 1], in the ball; in float32.

        Rounding of `clean + delta` is forgiven by one ulp of 1.0 (2^-23) a pixel: the ball may be exceeded by
        2^-23 for linf and by sqrt(3HW) 2^-23 for l2. The box is exact, and so is eps = 0.

        >>> clean = torch.full((2, 3, 4, 4), 0.5)
        >>> ThreatModel("linf", 0.1).contains(clean + torch.tensor([0.1, 0.2])[:, None, None, None], clean)
        tensor([ True, False])
        """
        pixels = candidate.float().flatten(1)
        box = ((pixels >= 0) & (pixels <= 1)).all(dim=1)  # false for NaN and infinities too
        per_pixel = PIXEL_ULP if self.eps > 0 else 0.0
        slack = per_pixel if self.norm == "linf" else per_pixel * math.sqrt(pixels.shape[1])
        return box & (self.distance(candidate, clean) <= self.eps + slack)


def checked_start(images: Tensor, init: Tensor | None, threat: ThreatModel) -> Tensor:
    """The first iterate (B, 3, H, W) of an attack: `init`, or the clean images, moved into the threat model.

    NaN pixels pass, so that the attack marks that one sample as failed.

    Raises:
        TypeError: images or init are not float32.
        ValueError: clean pixels outside [0, 1], or init of another shape.
    """
    start = images if init is None else init
    for tensor in (images, start):
        if tensor.dtype != torch.float32:
            raise TypeError(f"images must be float32, for rounding would move the ball; got {tensor.dtype}")
    if images.ndim != 4 or start.shape != images.shape:
        shapes = f"{tuple(images.shape)} and {tuple(start.shape)}"
        raise ValueError(f"images and init must both be (B, 3, H, W), got {shapes}")
    if ((images < 0) | (images > 1)).any():
        raise ValueError("clean images must lie in [0, 1]; normalisation belongs inside the model")
    return threat.project(start.detach(), images.detach())


_TINY = torch.finfo(torch.float32).tiny


def _length(delta: Tensor) -> Tensor:
    """Euclidean length of each image, (B, 1, 1, 1)."""
    length: Tensor = torch.linalg.vector_norm(delta, dim=(1, 2, 3), keepdim=True)
    return length
