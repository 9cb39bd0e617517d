"""From an opened image to the pixels that an encoder sees."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF


@dataclass(frozen=True)
class Preprocessing:
    """The pixel pipeline an encoder was trained with.

    Attributes:
        size: side of the square that the encoder sees, in pixels.
        mean: of the channels in [0, 1]; with ``std``, applied inside the encoder.
        interpolation: one of `INTERPOLATIONS`.
        resize_mode: "shortest" side resized, "squash" to a height and a width whatever the proportions, or "none".
        resized: to what: pixels of the shortest side, or (height, width); None for ``size``.
        crop: one of `CROPS`: how the middle is found when the margins are odd, and where an image that is too small
            stands on its black ground.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"
    resized: int | tuple[int, int] | None = None
    crop: str = "torchvision"

    def __call__(self, image: Image.Image) -> Tensor:
        """(3, size, size) float32 in [0, 1]: resized and cropped, not normalised."""
        image = CROPS[self.crop](self._resize(image.convert("RGB")), self.size)
        return cast(Tensor, TF.to_tensor(image))

    def _resize(self, image: Image.Image) -> Image.Image:
        if self.resize_mode == "none":
            return image
        target = self.size if self.resized is None else self.resized
        if isinstance(target, int):
            target = (target, target) if self.resize_mode == "squash" else target
        shape = [target] if isinstance(target, int) else list(target)
        return cast(Image.Image, TF.resize(image, shape, InterpolationMode(self.interpolation), antialias=True))


INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
"""By PIL's numbers, as transformers stores them."""


def _rounded(image: Image.Image, size: int) -> Image.Image:
    """As torchvision and open_clip: half a margin is rounded."""
    return cast(Image.Image, TF.center_crop(image, [size, size]))


def _floored(image: Image.Image, size: int) -> Image.Image:
    """As transformers' processors on PIL images: half a margin is rounded down, also below zero."""
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


CROPS: dict[str, Callable[[Image.Image, int], Image.Image]] = {"torchvision": _rounded, "transformers": _floored}
