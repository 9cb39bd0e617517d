"""Evaluate an encoder of your own: here the miniature CLIP with slightly noisy weights, saved as an open_clip folder.

Run it with ``python examples/own_encoder.py``.

Any folder that open_clip or transformers write is taken in the same way; so is a file with an image tower's weights.
"""

import shutil
import sys
from importlib import resources
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import bench


def noisy_copy(folder: Path, share: float = 0.02) -> Path:
    """The shipped miniature CLIP with Gaussian noise on its image tower, as an open_clip folder."""
    shipped = Path(str(resources.files("bench"))) / "mini" / "weights" / "clip"
    shutil.copytree(shipped, folder, dirs_exist_ok=True)
    weights = load_file(folder / "open_clip_model.safetensors")
    generator = torch.Generator().manual_seed(0)
    for name, tensor in weights.items():
        if name.startswith("visual.") and tensor.is_floating_point() and tensor.dim() > 1:
            noise = torch.randn(tensor.shape, generator=generator).to(tensor.dtype)
            weights[name] = tensor + share * tensor.std() * noise
    save_file(weights, folder / "open_clip_model.safetensors")
    return folder


def main(output: Path = Path("results/runs"), limit: int = 40) -> None:
    """Make the encoder, then evaluate it as a zero-shot classifier and inside the miniature LLaVA."""
    encoder = noisy_copy(output / "noisy-clip")
    result = bench.run(encoder=encoder, task="zeroshot,vqa", dataset="mini-shape,mini-vqa", limit=limit, output=output)
    print(result.table()[["task", "radius", "value", "n"]].to_string(index=False))


if __name__ == "__main__":
    main(*(Path(word) for word in sys.argv[1:2]))
