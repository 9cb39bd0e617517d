"""The images of a run on disk: the worst of each sample and radius, exact in float32 and as PNG; radius 0 is clean."""

import os
import shutil
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path

import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from safetensors.torch import save as as_safetensors
from torch import Tensor

from bench.records.files import explained
from tasks.base import Sample

WAITING = "waiting"
LONGEST_NAME = 200  # bytes; file systems end at 255, with the suffix
SEAL = "sha256"  # of the pixels, in the file's metadata: a flipped bit may change neither distance nor answer


def as_png(images: Tensor) -> Tensor:
    """Images (B, 3, H, W) as they come back from an 8-bit PNG."""
    return _bytes(images).float() / 255


def _bytes(images: Tensor) -> Tensor:
    return (images * 255).round().to(torch.uint8)


def _digest(image: Tensor) -> str:
    return sha256(image.view(torch.uint8).numpy().tobytes()).hexdigest()


def sealed(path: Path) -> tuple[Tensor, str | None, str]:
    """A saved image, the digest of its pixels when it was saved (None: before digests were kept), and that of now."""
    with safe_open(path, framework="pt") as file:
        image, metadata = file.get_tensor("image"), file.metadata() or {}
    return image, metadata.get(SEAL), _digest(image)


class ImageStore:
    """One safetensors file a sample and radius under ``directory``; a PNG beside it if asked.

    An image waits until its record is written, and only then takes its place: whenever the run dies, the images in
    place are those that the records speak of.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, sample_id: str, eps: float) -> Path:
        """Where an image lies; ids that are no file names are hashed."""
        plain = sample_id.replace("-", "").replace("_", "").isalnum() and len(sample_id.encode()) <= LONGEST_NAME
        name = sample_id if plain else sha256(sample_id.encode()).hexdigest()
        return self.directory / f"{eps:g}" / f"{name}.safetensors"

    def put(self, sample_id: str, step: str, eps: float, image: Tensor, *, png: bool = False) -> None:
        """Let one image (3, H, W) of a step wait, exact, and if asked as an 8-bit PNG too.

        Raises:
            RecordsError: the system refuses; names the path and a remedy.
        """
        path = self._waiting(sample_id, step, eps)
        exact = image.detach().cpu().contiguous()
        with explained("write", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if png:
                Image.fromarray(_bytes(image).permute(1, 2, 0).cpu().numpy()).save(path.with_suffix(".png"))
            with path.open("wb") as file:
                file.write(as_safetensors({"image": exact}, metadata={SEAL: _digest(exact)}))
                file.flush()
                os.fsync(file.fileno())  # before the record that speaks of it is on the disk

    def settle(self, recorded: Iterable[tuple[str, str, float]]) -> None:
        """Put waiting images of recorded (sample, step, radius) in their place, and discard all others that wait."""
        for sample_id, step, eps in recorded:
            waiting, path = self._waiting(sample_id, step, eps), self.path(sample_id, eps)
            if not waiting.exists():
                continue
            for suffix in (".png", ".safetensors"):  # the exact image last: while it waits, the pair is not in place
                if waiting.with_suffix(suffix).exists():
                    with explained("write", path):
                        path.parent.mkdir(parents=True, exist_ok=True)
                        os.replace(waiting.with_suffix(suffix), path.with_suffix(suffix))
        shutil.rmtree(self.directory / WAITING, ignore_errors=True)

    def _waiting(self, sample_id: str, step: str, eps: float) -> Path:
        name = sha256(repr((sample_id, step, float(eps))).encode()).hexdigest()
        return self.directory / WAITING / f"{name}.safetensors"

    def worst(self, samples: Sequence[Sample], clean: Tensor, eps: float) -> Tensor:
        """The saved image of each sample at the largest radius up to ``eps``; the clean one where none is saved."""
        images = clean.clone()
        present = (float(p.name) for p in self.directory.glob("*") if p.name != WAITING)
        radii = sorted((radius for radius in present if 0 < radius <= eps), reverse=True)
        for k, sample in enumerate(samples):
            path = next((p for r in radii if (p := self.path(sample.id, r)).exists()), None)
            if path is not None:
                images[k] = load_file(path)["image"].to(clean.device)
        return images
