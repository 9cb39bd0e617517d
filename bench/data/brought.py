"""A folder of images, one file per sample and named after its id: 8-bit PNG, or an exact float32 tensor."""

from collections.abc import Sequence
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import ExifTags, Image
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bench.data.images import read_file
from bench.errors import UsageError
from bench.trust.places import safe_name
from tasks.base import Sample

PNG, EXACT = ".png", ".safetensors"
SHOWN = 3  # files named in a message
_DEPTH_AT = 24  # of a PNG: its signature, then the length, name, width and height of its first chunk
_LOSSY = (".jpg", ".jpeg", ".webp")
_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)


def read_folder(folder: Path, samples: Sequence[Sample], *, formats: Sequence[str] = (EXACT, PNG)) -> Tensor:
    """The images (N, 3, H, W) float32 of N samples, in [0, 1].

    Args:
        folder: where they lie. A file is named after its sample's id, or after `bench.trust.places.safe_name` of it.
        samples: whose images are wanted; there must be a file for each.
        formats: of the files, by suffix; where a sample has several, the first counts.

    Raises:
        UsageError: files are missing, of another format, damaged, of several sizes or out of range; names them.
    """
    paths = _matched(folder, samples, formats)
    images = [_READERS[path.suffix](path) for path in paths]
    sizes = {image.shape for image in images}
    if len(sizes) > 1:
        first = images[0].shape
        others = [f"{path.name} is {_size(i)}" for path, i in zip(paths, images, strict=True) if i.shape != first]
        raise UsageError(f"{folder}: images must have one size: {paths[0].name} is {_size(images[0])}, {_some(others)}")
    return torch.from_numpy(np.stack(images))


def refuse_surplus(folder: Path, samples: Sequence[Sample]) -> None:
    """Refuse files that belong to no sample.

    Raises:
        UsageError: there are some; names them.
    """
    if surplus := _surplus(_files(folder), samples):
        raise UsageError(f"{folder}: {len(surplus)} files belong to no sample: {_some(surplus)}; remove or rename them")


def digest(images: Tensor) -> str:
    """sha256 of images with their shape."""
    content = np.ascontiguousarray(images.cpu().numpy())
    return sha256(repr(content.shape).encode() + content.tobytes()).hexdigest()


def _matched(folder: Path, samples: Sequence[Sample], formats: Sequence[str]) -> list[Path]:
    """Each sample's file."""
    if not folder.is_dir():
        raise UsageError(f"no folder {folder}; it must hold one image per sample")
    files = _files(folder)
    _refuse_other_formats(folder, files, formats)
    by_stem: dict[str, Path] = {}
    for suffix in reversed(formats):
        by_stem |= {path.stem: path for path in files if path.suffix == suffix}
    found = [by_stem.get(sample.id) or by_stem.get(safe_name(sample.id)) for sample in samples]
    missing = [safe_name(s.id) + formats[-1] for s, path in zip(samples, found, strict=True) if path is None]
    if missing:
        surplus = _surplus(files, samples)
        renamed = f"; {len(surplus)} others belong to no sample: {_some(surplus)}" if surplus else ""
        raise UsageError(
            f"{folder}: {len(missing)} of {len(samples)} files are missing: {_some(missing)}{renamed}. A file is named "
            "after its sample's id"
        )
    return [path for path in found if path is not None]


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]


def _surplus(files: Sequence[Path], samples: Sequence[Sample]) -> list[str]:
    known = {name for sample in samples for name in (sample.id, safe_name(sample.id))}
    return [path.name for path in files if path.stem not in known]


def _refuse_other_formats(folder: Path, files: Sequence[Path], formats: Sequence[str]) -> None:
    stems = {path.stem for path in files if path.suffix in formats}
    others = [
        path for path in files if path.suffix not in formats and not (path.suffix == EXACT and path.stem in stems)
    ]
    if lossy := [path.name for path in others if path.suffix.lower() in _LOSSY]:
        raise UsageError(
            f"{folder}: {_some(lossy)}: lossy formats move pixels, so that neither attack nor distance is what it was; "
            "save the attack's own output as 8-bit PNG"
        )
    if others:
        wanted = " or ".join("8-bit RGB PNG" if suffix == PNG else "float32 safetensors" for suffix in formats)
        raise UsageError(f"{folder}: {_some([path.name for path in others])}: an image must be {wanted}")


def _read_png(path: Path) -> npt.NDArray[np.float32]:
    try:
        content = read_file(path)
        with Image.open(BytesIO(content), formats=["PNG"]) as image:
            if strange := _strange(image, content):
                raise UsageError(f"{path} {strange}; save it as 8-bit RGB")
            pixels = np.asarray(image).transpose(2, 0, 1)
    except UsageError:
        raise
    except _UNREADABLE as error:
        raise UsageError(f"{path} is no PNG ({error}); save it again") from error
    return np.asarray(pixels / np.float32(255), dtype=np.float32)


def _strange(image: Image.Image, content: bytes) -> str:
    """What of a PNG is more than the 8-bit RGB pixels that are read; empty if nothing is."""
    if image.mode != "RGB":
        return f"has the mode {image.mode}"
    if (depth := content[_DEPTH_AT]) != 8:
        return f"has {depth} bits per channel, of which 8 would be read"
    if "transparency" in image.info:
        return "has a transparent colour"
    if getattr(image, "n_frames", 1) > 1:
        return f"is an animation of {image.n_frames} frames"  # type: ignore[attr-defined]
    turned = image.getexif().get(ExifTags.Base.Orientation, 1)
    return "" if turned == 1 else "is to be turned as its EXIF says"


def _read_exact(path: Path) -> npt.NDArray[np.float32]:
    if not path.is_file():
        raise UsageError(f"{path} is no file but a folder, a pipe or a device; remove it")
    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            pixels = file.get_tensor(names[0]) if len(names) == 1 else None
    except (SafetensorError, OSError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{path} is no safetensors file ({error}); save it again") from error
    if pixels is None or pixels.dtype != np.float32 or pixels.ndim != 3 or pixels.shape[0] != 3:
        held = f"{len(names)} tensors" if pixels is None else f"{pixels.shape} {pixels.dtype}"
        raise UsageError(f"{path} holds {held}; it must hold one float32 tensor of shape (3, height, width)")
    if not pixels.size:
        raise UsageError(f"{path} holds an image of {_size(pixels)}; save it again")
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 1):
        raise UsageError(f"{path}: pixels lie in [{low:g}, {high:g}], not in [0, 1]; save them not normalised")
    return np.asarray(pixels, dtype=np.float32)


_READERS = {PNG: _read_png, EXACT: _read_exact}


def _size(image: npt.NDArray[np.float32]) -> str:
    return f"{image.shape[2]} x {image.shape[1]} pixels"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
