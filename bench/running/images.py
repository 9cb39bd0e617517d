"""The images of a run on disk: the worst of each sample and radius, exact in float32 and as PNG; radius 0 is clean."""

import os
import shutil
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import torch
from PIL import Image
from safetensors.torch import save as as_safetensors
from torch import Tensor

from bench.records.files import explained, open_inside, unlinked
from bench.records.images import SEAL, TENSOR, WAITING, digest, path_of, read_image, worst_path
from bench.records.worst import Counts, up_to
from tasks.base import Sample


def as_png(images: Tensor) -> Tensor:
    """Images (B, 3, H, W) as they come back from an 8-bit PNG."""
    return _bytes(images).float() / 255


def _bytes(images: Tensor) -> Tensor:
    return (images * 255).round().to(torch.uint8)


class ImageStore:
    """One safetensors file a sample and radius under ``directory``; a PNG beside it if asked.

    An image waits until its record is written, and only then takes its place: whenever the run dies, the images in
    place are those that the records speak of. No link below the run's folder is followed.
    """

    def __init__(self, directory: Path, counts: Counts = up_to) -> None:
        self.directory, self.counts = directory, counts
        self._run = directory.parent

    def path(self, sample_id: str, eps: float) -> Path:
        """Where an image lies."""
        return path_of(self.directory, sample_id, eps)

    def put(self, sample_id: str, step: str, eps: float, image: Tensor, *, png: bool = False) -> None:
        """Let one image (3, H, W) of a step wait, exact, and if asked as an 8-bit PNG too.

        Raises:
            RecordsError: the system refuses; names the path and a remedy.
        """
        path = self._waiting(sample_id, step, eps)
        exact = image.detach().cpu().contiguous()
        with explained("write", path):
            self._make_folder(path)
            if png:
                with self._create(path.with_suffix(".png")) as file:
                    Image.fromarray(_bytes(image).permute(1, 2, 0).cpu().numpy()).save(file, "PNG")
            with self._create(path) as file:
                file.write(as_safetensors({TENSOR: exact}, metadata={SEAL: digest(exact.numpy())}))
                file.flush()
                os.fsync(file.fileno())  # before the record that speaks of it is on the disk

    def _make_folder(self, path: Path) -> None:
        unlinked(path.parent, self._run).mkdir(parents=True, exist_ok=True)

    def _create(self, path: Path) -> BinaryIO:
        return os.fdopen(open_inside(unlinked(path, self._run), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb")

    def settle(self, recorded: Iterable[tuple[str, str, float]]) -> None:
        """Put waiting images of recorded (sample, step, radius) in their place, and discard all others that wait.

        Raises:
            RecordsError: a folder on the way is a link, or the system refuses.
        """
        unlinked(self.directory / WAITING, self._run)
        for sample_id, step, eps in recorded:
            waiting, path = self._waiting(sample_id, step, eps), self.path(sample_id, eps)
            if not waiting.exists():
                continue
            for suffix in (".png", ".safetensors"):  # the exact image last: while it waits, the pair is not in place
                if waiting.with_suffix(suffix).exists():
                    with explained("write", path):
                        self._make_folder(path)
                        os.replace(waiting.with_suffix(suffix), path.with_suffix(suffix))
        shutil.rmtree(self.directory / WAITING, ignore_errors=True)

    def _waiting(self, sample_id: str, step: str, eps: float) -> Path:
        name = sha256(repr((sample_id, step, float(eps))).encode()).hexdigest()
        return self.directory / WAITING / f"{name}.safetensors"

    def worst(self, samples: Sequence[Sample], clean: Tensor, eps: float) -> Tensor:
        """The saved image of each sample at the largest radius that counts at ``eps``; the clean one where none is."""
        images = clean.clone()
        for k, sample in enumerate(samples):
            if (path := worst_path(self.directory, sample.id, eps, self.counts)) is not None:
                images[k] = torch.from_numpy(read_image(path).pixels).to(clean.device)
        return images
