"""Random views of an 8-bit picture: crops, mirrored or not, with AugMix on them. All draws come from one generator."""

import math
import random
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)  # of a crop: share of the picture, width to height (Inception crops)
CHAINS, DEEPEST = 3, 3  # AugMix (Hendrycks et al. 2020, arXiv 1912.02781), section 3
LEVEL = (0.01, 0.1)  # share of the strongest change: severity 1 of 10
TURN, SLANT, SHIFT = 30.0, 0.3, 1 / 3  # the strongest: degrees, slope, share of the side


def picture_of(image: Tensor) -> Image.Image:
    """The 8-bit picture that an image (3, H, W) in [0, 1] is rounded to."""
    pixels = (image.detach() * 255).round().clamp(0, 255).to("cpu", torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def numbers(picture: Image.Image) -> np.ndarray:
    """(H, W, 3) float32 in [0, 1]."""
    return np.asarray(picture, np.float32) / 255


def random_crop(picture: Image.Image, draw: random.Random) -> Image.Image:
    """A random crop, resized to the picture's size, and mirrored half of the time."""
    width, height = picture.size
    area = draw.uniform(*AREA) * width * height
    ratio = math.exp(draw.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
    wide = max(1, min(width, round(math.sqrt(area * ratio))))
    high = max(1, min(height, round(math.sqrt(area / ratio))))
    left, top = draw.randint(0, width - wide), draw.randint(0, height - high)
    box = (left, top, left + wide, top + high)
    crop = picture.resize((width, height), Image.Resampling.BILINEAR, box)
    return ImageOps.mirror(crop) if draw.random() < 0.5 else crop


def augmix(picture: Image.Image, draw: random.Random) -> np.ndarray:
    """AugMix: a mixture of chains of mild changes, mixed with the picture; (H, W, 3) in [0, 1].

    Weights of the three chains are drawn from Dirichlet(1, 1, 1), the share of the picture from Beta(1, 1).
    """
    weights = [draw.expovariate(1) for _ in range(CHAINS)]
    share, mixed = draw.random(), np.zeros((picture.height, picture.width, 3), np.float32)
    for weight in weights:
        changed = picture
        for _ in range(draw.randint(1, DEEPEST)):
            changed = draw.choice(CHANGES)(changed, draw)
        mixed += weight / sum(weights) * numbers(changed)
    return share * numbers(picture) + (1 - share) * mixed


def _signed(most: float, draw: random.Random) -> float:
    """A level of a change whose greatest is `most`, to either side."""
    return most * draw.uniform(*LEVEL) * draw.choice((-1, 1))


def _slanted(picture: Image.Image, *rows: float) -> Image.Image:
    return picture.transform(picture.size, Image.Transform.AFFINE, rows, Image.Resampling.BILINEAR)


CHANGES: Sequence[Callable[[Image.Image, random.Random], Image.Image]] = (
    lambda picture, draw: ImageOps.autocontrast(picture),
    lambda picture, draw: ImageOps.equalize(picture),
    lambda picture, draw: ImageOps.posterize(picture, 4 - int(4 * draw.uniform(*LEVEL))),
    lambda picture, draw: ImageOps.solarize(picture, 256 - int(256 * draw.uniform(*LEVEL))),
    lambda picture, draw: picture.rotate(_signed(TURN, draw), Image.Resampling.BILINEAR),
    lambda picture, draw: _slanted(picture, 1, _signed(SLANT, draw), 0, 0, 1, 0),
    lambda picture, draw: _slanted(picture, 1, 0, 0, _signed(SLANT, draw), 1, 0),
    lambda picture, draw: _slanted(picture, 1, 0, _signed(SHIFT * picture.width, draw), 0, 1, 0),
    lambda picture, draw: _slanted(picture, 1, 0, 0, 0, 1, _signed(SHIFT * picture.height, draw)),
)
