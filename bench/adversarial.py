"""The adversarial images of a run on disk: the worst of each sample and radius, in float32."""

import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from tasks.base import Sample


class ImageStore:
    """One safetensors file a sample and radius under ``directory``, replaced atomically."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, sample_id: str, eps: float) -> Path:
        """Where an image lies; ids that are no file names are hashed."""
        plain = sample_id.replace("-", "").replace("_", "").isalnum()
        name = sample_id if plain else sha256(sample_id.encode()).hexdigest()
        return self.directory / f"{eps:g}" / f"{name}.safetensors"

    def put(self, sample_id: str, eps: float, image: Tensor) -> None:
        """Save one image (3, H, W)."""
        path = self.path(sample_id, eps)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
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
