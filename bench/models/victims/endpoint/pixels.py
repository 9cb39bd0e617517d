"""The very bytes that are sent of an image."""

from base64 import b64encode
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor


@dataclass(frozen=True)
class Picture:
    """An image as it is sent.

    Attributes:
        png: the file.
        digest: sha256 of the file.
        pixels: sha256 of the (height, width, 3) bytes before they were enlarged.
    """

    png: bytes
    digest: str
    pixels: str

    @property
    def base64(self) -> str:
        """The file as text."""
        return b64encode(self.png).decode("ascii")


def picture(image: Tensor, enlarge: int = 1) -> Picture:
    """The PNG of an image (3, H, W) in [0, 1], rounded to 8 bits, each pixel a square of ``enlarge`` a side."""
    rounded = (image * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    large = rounded.repeat(enlarge, axis=0).repeat(enlarge, axis=1)
    file = BytesIO()
    Image.fromarray(large).save(file, "PNG")
    png = file.getvalue()
    return Picture(png, sha256(png).hexdigest(), pixel_digest(image))


def pixel_digest(image: Tensor) -> str:
    """sha256 of an image's (height, width, 3) bytes in 8 bits."""
    rounded = (image * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return sha256(np.ascontiguousarray(rounded).tobytes()).hexdigest()
