"""The adversarial images of a run on disk: the worst of each sample and radius, exact in float32 and as PNG."""

import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from tasks.base import Sample


def as_png(images: Tensor) -> Tensor:
    """Images (B, 3, H, W) as they come back from an 8-bit PNG."""
    return _bytes(images).float() / 255


def _bytes(images: Tensor) -> Tensor:
    return (images * 255).round().to(torch.uint8)


class ImageStore:
    """One safetensors file a sample and radius under ``directory``, replaced atomically; a PNG beside it if asked."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, sample_id: str, eps: float) -> Path:
        """Where an image lies; ids that are no file names are hashed."""
        plain = sample_id.replace("-", "").replace("_", "").isalnum()
        name = sample_id if plain else sha256(sample_id.encode()).hexdigest()
        return self.directory / f"{eps:g}" / f"{name}.safetensors"

    def put(self, sample_id: str, eps: float, image: Tensor, *, png: bool = False) -> None:
        """Save one image (3, H, W) exactly, and if asked beside it as an 8-bit PNG."""
        path = self.path(sample_id, eps)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        if png:
            Image.fromarray(_bytes(image).permute(1, 2, 0).cpu().numpy()).save(temporary, format="png")
            os.replace(temporary, path.with_suffix(".png"))
        save_file({"image": image.detach().cpu().contiguous()}, temporary)
        os.replace(temporary, path)

    def worst(self, samples: Sequence[Sample], clean: Tensor, eps: float) -> Tensor:
        """The saved image of each sample at the largest radius up to ``eps``; the clean one where none is saved."""
        images = clean.clone()
        radii = sorted((float(p.name) for p in self.directory.glob("*") if float(p.name) <= eps), reverse=True)
        for k, sample in enumerate(samples):
            path = next((p for r in radii if (p := self.path(sample.id, r)).exists()), None)
            if path is not None:
                images[k] = load_file(path)["image"].to(clean.device)
        return images
