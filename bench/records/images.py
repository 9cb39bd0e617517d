"""The images that a run saves: where each lies, and how it is read back. Never imports torch.

    adversarial/RADIUS/SAMPLE.safetensors   float32 tensor "image", (3, H, W) in [0, 1], with its sha256
    adversarial/RADIUS/SAMPLE.png           the same in 8 bits, with --save-adversarial
    adversarial/0/SAMPLE.safetensors        the clean image, with --save-adversarial
    adversarial/waiting/                    images whose record is not written yet

The image of a sample at a radius is that of the record in `bench.records.worst.kept_records`.
"""

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from safetensors import SafetensorError, safe_open

from bench.records.files import RecordsError, check_inside, read_inside, unlinked
from bench.trust.places import safe_name

FOLDER, WAITING = "adversarial", "waiting"
TENSOR, SEAL = "image", "sha256"
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class SavedImage:
    """One image as it lies on disk.

    Attributes:
        pixels: As saved; (3, H, W), float32, in [0, 1] unless it was tampered with.
        seal: Digest of the pixels when they were saved; None before digests were kept.
        digest: Digest of the pixels now: a flipped bit may change neither distance nor answer.
    """

    pixels: npt.NDArray[Any]
    seal: str | None
    digest: str


def path_of(folder: Path, sample_id: str, radius: float) -> Path:
    """Where the image of a sample at a radius lies under a run's folder of images; radius 0 is the clean one."""
    return folder / _folder_name(radius) / f"{safe_name(sample_id)}{SUFFIX}"


def _folder_name(radius: float) -> str:
    short = f"{radius:g}"
    return short if float(short) == radius else repr(float(radius))


def saved_paths(folder: Path) -> Iterator[tuple[float, Path]]:
    """Radius and path of every image in place, sorted; those that wait are left out."""
    for radius, place in sorted(_radii(folder)):
        for path in sorted(place.glob(f"*{SUFFIX}")):
            yield radius, path


def _radii(folder: Path) -> Iterator[tuple[float, Path]]:
    for place in folder.iterdir() if folder.is_dir() else ():
        try:
            yield float(place.name), place
        except ValueError:  # those that wait, and what is no folder of ours
            continue


def worst_path(
    folder: Path, sample_id: str, radius: float, counts: Callable[[float, float], bool] = operator.le
) -> Path | None:
    """Where a sample's worst adversarial image lies: that of the largest radius that counts; None without one."""
    within = sorted((r for r, _ in _radii(folder) if r > 0 and counts(r, radius)), reverse=True)
    return next((path for r in within if (path := path_of(folder, sample_id, r)).exists()), None)


def digest(pixels: npt.NDArray[Any]) -> str:
    """sha256 of an image's bytes."""
    return sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def read_png(path: Path) -> npt.NDArray[np.uint8]:
    """The 8-bit image (3, H, W) beside a saved image.

    Raises:
        RecordsError: If it is absent, a link, or no PNG in RGB.
    """
    try:
        with Image.open(BytesIO(read_inside(unlinked(path, path.parents[2]))), formats=["PNG"]) as image:
            if image.mode != "RGB":
                raise ValueError(f"its mode is {image.mode}")
            return np.asarray(image).transpose(2, 0, 1)
    except (RecordsError, OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise RecordsError(f"{path} is no PNG that a run saved: {error}") from error


def read_image(path: Path) -> SavedImage:
    """The image at a path that `path_of` gave.

    Raises:
        RecordsError: If it is absent, a link, or no saved image.
    """
    try:
        with safe_open(check_inside(unlinked(path, path.parents[2])), framework="numpy") as file:
            pixels, metadata = file.get_tensor(TENSOR), file.metadata() or {}
    except (RecordsError, SafetensorError, OSError, TypeError, ValueError, AttributeError) as error:
        raise RecordsError(f"{path} is no image that a run saved: {error}") from error
    return SavedImage(pixels, metadata.get(SEAL), digest(pixels))
