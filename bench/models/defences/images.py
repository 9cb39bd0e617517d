"""Defences that change the image: compression, fewer bits, another size, noise."""

import io
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from bench.errors import UsageError
from bench.models.defences.base import ImageDefence, See
from bench.models.defences.draws import Draws


@dataclass(frozen=True)
class Identity(ImageDefence):
    """No defence: what every measurement of one must agree with."""

    about: ClassVar[str] = "changes nothing: a control"
    own_gradient: ClassVar[bool] = True

    def purify(self, images: Tensor, see: See, draws: Draws) -> Tensor:
        """The images themselves."""
        return images

    def purify_surrogate(self, images: Tensor, see: See, draws: Draws) -> Tensor:
        """The images themselves."""
        return images


@dataclass(frozen=True)
class Jpeg(ImageDefence):
    """JPEG compression by Pillow (Dziugaite et al. 2016, arXiv 1608.00853; Guo et al. 2018, arXiv 1711.00117)."""

    quality: int = 75

    about: ClassVar[str] = "JPEG compression; option quality"

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 95:
            raise UsageError(f"jpeg: quality must be from 1 to 95, not {self.quality}")

    def purify(self, images: Tensor, see: See, draws: Draws) -> Tensor:
        """Through a JPEG file and back; there is no gradient."""
        pixels = (images.detach() * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        decoded = torch.from_numpy(np.stack([self._through_file(one) for one in pixels]))
        return decoded.permute(0, 3, 1, 2).to(images.device).float() / 255

    def _through_file(self, pixels: np.ndarray) -> np.ndarray:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=self.quality)
        return np.array(Image.open(file))


@dataclass(frozen=True)
class BitDepth(ImageDefence):
    """Fewer bits per channel (Xu et al. 2018, arXiv 1704.01155)."""

    bits: int = 4

    about: ClassVar[str] = "fewer bits per channel; option bits"

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise UsageError(f"bit-depth: bits must be from 1 to 8, not {self.bits}")

    def purify(self, images: Tensor, see: See, draws: Draws) -> Tensor:
        """The nearest of the levels there are; its gradient is zero."""
        levels = (1 << self.bits) - 1
        return torch.round(images * levels) / levels


@dataclass(frozen=True)
class ResizePad(ImageDefence):
    """A random smaller size, padded with zeros at a random place (Xie et al. 2018, arXiv 1711.01991)."""

    smallest: float = 0.9

    about: ClassVar[str] = "random size and place on a black ground; option smallest, a share of the side"
    randomised: ClassVar[bool] = True
    own_gradient: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= 1:
            raise UsageError(f"resize-pad: smallest must be above 0 and at most 1, not {self.smallest}")

    def purify(self, images: Tensor, see: See, draws: Draws) -> Tensor:
        """Bilinear sampling, hence with its own gradient."""
        size, x, y = draws.uniform(images.new_empty(len(images), 3)).unbind(1)
        size = self.smallest + (1 - self.smallest) * size
        room = 1 - size
        zero = torch.zeros_like(size)
        rows = [
            torch.stack([1 / size, zero, -(2 * x - 1) * room / size], 1),
            torch.stack([zero, 1 / size, -(2 * y - 1) * room / size], 1),
        ]
        grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
        sampled: Tensor = F.grid_sample(images, grid, align_corners=False)
        return sampled

    def purify_surrogate(self, images: Tensor, see: See, draws: Draws) -> Tensor:
        """Its own gradient is exact."""
        return self.purify(images, see, draws)


@dataclass(frozen=True)
class Noise(ImageDefence):
    """Gaussian noise on the image, looked at once: randomised smoothing of inputs (Cohen et al. 2019, 1902.02918).

    The share of draws with the right answer is what smoothing takes its vote on; that share is the score.
    """

    sigma: float = 8.0

    about: ClassVar[str] = "smoothing of inputs: Gaussian noise on the image; option sigma, in 1/255"
    randomised: ClassVar[bool] = True
    own_gradient: ClassVar[bool] = True

    def purify(self, images: Tensor, see: See, draws: Draws) -> Tensor:
        """Noise is added; it is not clipped, so that the gradient is exact."""
        return images + self.sigma / 255 * draws.normal(images)

    def purify_surrogate(self, images: Tensor, see: See, draws: Draws) -> Tensor:
        """Its own gradient is exact."""
        return self.purify(images, see, draws)
