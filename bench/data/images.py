"""From image files of every kind to 8-bit RGB, and the fingerprint of a data set."""

import json
import struct
from collections.abc import Iterable
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from bench.errors import UsageError
from tasks.base import Dataset

_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
_SIXTEEN_BITS = 65535


def open_image(source: Image.Image | Path) -> Image.Image:
    """Decode an image to 8-bit RGB, upright.

    The orientation noted in EXIF is applied, 16-bit greyscale is scaled to 8 bits (not clipped), transparency
    is dropped as CLIP's own preprocessing drops it, and of an animation the first frame counts.

    Args:
        source: a picture, or the file it lies in.

    Raises:
        UsageError: the file is missing, empty, truncated or no image, or its pixels have no known range.
    """
    label = str(source) if isinstance(source, Path) else str(getattr(source, "filename", "") or "an image in memory")
    try:
        if isinstance(source, Path):
            with Image.open(source) as image:
                return _rgb(image, label)
        return _rgb(source, label)
    except UsageError:
        raise
    except FileNotFoundError:
        raise UsageError(f"no image at {label}; download the images to that place, or mend --data-root") from None
    except UnidentifiedImageError:
        raise UsageError(f"{_no_image(source, label)}; download it again") from None
    except _UNREADABLE as error:
        raise UsageError(f"{label} cannot be decoded ({error}); download it again") from error


def identify(content: bytes, label: str) -> Image.Image:
    """An image of which only the header is decoded so far; `open_image` does the rest.

    Args:
        content: of the image file.
        label: what errors call it, now and when it is decoded.

    Raises:
        UsageError: it is empty or no image.
    """
    if not content:
        raise UsageError(f"{label} is empty (0 bytes); download it again")
    try:
        image = Image.open(BytesIO(content))
    except _UNREADABLE:
        raise UsageError(f"{label} is not an image; download it again") from None
    image.filename = label
    return image


def _no_image(source: Image.Image | Path, label: str) -> str:
    if isinstance(source, Path) and source.stat().st_size == 0:
        return f"{label} is empty (0 bytes)"
    return f"{label} is not an image (an HTML page, or a git-lfs pointer?)"


def _rgb(image: Image.Image, label: str) -> Image.Image:
    if getattr(image, "is_animated", False):
        image.seek(0)
    image.load()
    image = _upright(image)
    if image.mode == "F":
        raise UsageError(f"{label} has floating-point pixels, whose range is not known; convert it to 8 bits")
    if image.mode.startswith("I"):
        return _from_sixteen_bits(image, label)
    if image.mode == "P":
        image = image.convert("RGBA")
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF says; damaged EXIF says nothing."""
    try:
        return ImageOps.exif_transpose(image)
    except _UNREADABLE:
        return image


def _from_sixteen_bits(image: Image.Image, label: str) -> Image.Image:
    """0..65535 to 0..255, rounded: 65535 = 255 * 257."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > _SIXTEEN_BITS:
        raise UsageError(f"{label} has 32-bit pixels, whose range is not known; convert it to 8 bits")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")


def fingerprint(dataset: Dataset, images: Iterable[Image.Image] | None = None) -> str:
    """SHA-256 over all that a score depends on: texts, class names, limits, decoded pixels in sample order.

    It is the same for an embedded data set and for its export to files.

    Args:
        dataset: the samples.
        images: their pictures if already open, one a sample; by default each is opened here in turn.

    Raises:
        UsageError: as `open_image`.
        ValueError: there are more or fewer images than samples.
    """
    texts = {
        "name": dataset.name,
        "classnames": dataset.classnames,
        "templates": dataset.templates,
        "prompt_suffix": dataset.prompt_suffix,
        "max_new_tokens": dataset.max_new_tokens,
        "samples": [(s.id, s.prompt, s.references, s.group) for s in dataset.samples],
    }
    total = sha256(json.dumps(texts, sort_keys=True).encode())
    sources = (s.image for s in dataset.samples) if images is None else images
    for _, source in zip(dataset.samples, sources, strict=True):
        image = open_image(source)
        total.update(f"\n{image.width}x{image.height}\n".encode())
        total.update(image.tobytes())
    return total.hexdigest()
