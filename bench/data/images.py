"""From image files of every kind to 8-bit RGB, and the fingerprint of a dataset."""

import json
import stat
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from bench.errors import UsageError
from tasks.base import Dataset, StoredImage, Target

_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
_SIXTEEN_BITS = 65535
LARGEST = 1 << 28  # bytes of an image file
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")  # no other decoder is let near a file
GREY = "greyscale"  # in the `info` of an opened picture: its file holds nothing but greys (PIL's mode L)


@dataclass(frozen=True)
class Stored:
    """An image file inside a larger file (see `tasks.base.StoredImage`).

    Attributes:
        label: what errors call it, e.g. "0.tar:s0000000.png".
        read: gives the bytes of the image file.
    """

    label: str
    read: Callable[[], bytes] = field(repr=False, compare=False)


def open_image(source: Image.Image | Path | StoredImage, *, upright: bool = True) -> Image.Image:
    """Decode an image to 8-bit RGB: the one way in the package, for evaluation and training.

    What a file is, its content says, and only `FORMATS` are read: Pillow hands an EPS file, whatever it is called, to
    Ghostscript, which runs the program in it.

    16-bit greyscale is scaled to 8 bits (not clipped), transparency is dropped as CLIP's own preprocessing drops it,
    and of an animation the first frame counts.

    Args:
        source: a picture, or where it lies.
        upright: turn it as its EXIF orientation says.

    Raises:
        UsageError: the file is missing, empty, truncated, too large or no image of these formats, or its pixels have
            no known range.
    """
    label = _label(source)
    try:
        if isinstance(source, Image.Image):
            return _rgb(source, label, upright)
        content = read_file(source) if isinstance(source, Path) else source.read()
        _check_size(len(content), label)
        with Image.open(BytesIO(content), formats=_decoders()) as image:
            return _rgb(image, label, upright)
    except UsageError:
        raise
    except FileNotFoundError:
        raise UsageError(f"no image at {label}; download the images to that place, or fix --data-root") from None
    except UnidentifiedImageError:
        raise UsageError(
            f"{label} is not an image in a format that is read ({', '.join(FORMATS)}), perhaps an HTML page or a "
            "git-lfs pointer; download it again, or convert it to PNG"
        ) from None
    except Exception as error:  # decoders raise anything at all on damaged files
        raise UsageError(f"{label} cannot be decoded ({error}); download it again") from error


@cache
def _decoders() -> tuple[str, ...]:
    """Those of `FORMATS` that Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def read_file(path: Path) -> bytes:
    """The content of an image file; what has no end, such as a pipe or a device, is not read.

    Raises:
        UsageError: it is no file, empty, or larger than any image.
        OSError: it cannot be read.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise UsageError(f"{path} is no file but a folder, a pipe or a device; remove it")
    _check_size(found.st_size, str(path))
    return path.read_bytes()


def _check_size(size: int, label: str) -> None:
    if not size:
        raise UsageError(f"{label} is empty (0 bytes); download it again")
    if size > LARGEST:
        raise UsageError(f"{label} has {size} bytes; an image file has at most {LARGEST}: is it one?")


def _label(source: Image.Image | Path | StoredImage) -> str:
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or "an image in memory")
    return str(source) if isinstance(source, Path) else source.label


def _rgb(image: Image.Image, label: str, upright: bool) -> Image.Image:
    file_format = image.format
    if getattr(image, "is_animated", False):
        image.seek(0)
    image.load()
    if upright:
        image = _upright(image)
    if image.mode == "F":
        raise UsageError(f"{label} has floating-point pixels, whose range is not known; convert it to 8 bits")
    if image.mode.startswith("I"):
        return _from_sixteen_bits(image, label, file_format)
    if image.mode == "P":
        image = image.convert("RGBA")
    rgb = image.convert("RGB")
    if image.mode == "L":
        rgb.info[GREY] = True
    return rgb


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF says; damaged EXIF says nothing."""
    try:
        return ImageOps.exif_transpose(image)
    except _UNREADABLE:
        return image


def _from_sixteen_bits(image: Image.Image, label: str, file_format: str | None) -> Image.Image:
    """0..65535 to 0..255, rounded: 65535 = 255 * 257. Mode "I" of a TIFF is 32 bits, however small its values."""
    values = np.asarray(image).astype(np.int64)
    deep = image.mode == "I" and file_format == "TIFF"
    if deep or values.min() < 0 or values.max() > _SIXTEEN_BITS:
        raise UsageError(f"{label} has 32-bit pixels, whose range is not known; convert it to 8 bits")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")


class Fingerprint:
    """SHA-256 over all that a score depends on: texts, class names, limits, decoded pixels in sample order.

    It is the same for an embedded dataset and for its export to files.
    """

    def __init__(self, dataset: Dataset) -> None:
        texts = {
            "name": dataset.name,
            "classnames": dataset.classnames,
            "templates": dataset.templates,
            "prompt_suffix": dataset.prompt_suffix,
            "max_new_tokens": dataset.max_new_tokens,
            "samples": [(s.id, s.prompt, s.references, s.group) for s in dataset.samples],
        }
        self._total = sha256(json.dumps(texts | _rarer(dataset), sort_keys=True).encode())

    def add(self, picture: Image.Image) -> None:
        """The next sample's picture, as `open_image` gives it."""
        self._total.update(f"\n{picture.width}x{picture.height}\n".encode())
        self._total.update(picture.tobytes())

    def hexdigest(self) -> str:
        """64 hexadecimal digits."""
        return self._total.hexdigest()


def _rarer(dataset: Dataset) -> dict[str, object]:
    """What few datasets have; left out where it is as usual, so that fingerprints last when fields are added."""
    found: dict[str, object] = {}
    if dataset.native_size:
        found["native_size"] = True
    if dataset.broken_below != Dataset.broken_below:
        found["broken_below"] = dataset.broken_below
    if dataset.scoring != Dataset.scoring:
        found["scoring"] = dataset.scoring
    if len(set(dataset.classnames)) < len(dataset.classnames):
        found["labels"] = [s.label for s in dataset.samples]
    if dataset.answer_words != Dataset.answer_words:
        found["answer_words"] = dataset.answer_words
    if any(s.captions for s in dataset.samples):
        found["captions"] = [s.captions for s in dataset.samples]
    if any(s.choices for s in dataset.samples):
        found["choices"] = [(s.choices, s.label) for s in dataset.samples]
    if any(s.target is not None for s in dataset.samples):
        found["targets"] = [_of_target(s.target) for s in dataset.samples]
    if any(s.attack_references is not None for s in dataset.samples):
        found["attack_references"] = [s.attack_references for s in dataset.samples]
    return found


def _of_target(target: Target | None) -> object:
    """A target's texts and pixels."""
    if target is None:
        return None
    return target.text, target.keywords, sha256(open_image(target.image).tobytes()).hexdigest()


def fingerprint(dataset: Dataset, images: Iterable[Image.Image] | None = None) -> str:
    """The `Fingerprint` of a dataset.

    Args:
        dataset: the samples.
        images: their pictures if already open, one per sample; by default each is opened here in turn.

    Raises:
        UsageError: as `open_image`.
        ValueError: there are more or fewer images than samples.
    """
    total = Fingerprint(dataset)
    sources = (s.image for s in dataset.samples) if images is None else images
    for _, source in zip(dataset.samples, sources, strict=True):
        total.add(open_image(source))
    return total.hexdigest()
