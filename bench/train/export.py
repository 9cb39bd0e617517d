"""What leaves the trainer, in the forms that others load.

The run directory itself is an open_clip hub folder; beside the whole model lie the image tower alone, the form of the
published checkpoints, and a transformers folder of ViTs.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from open_clip.transformer import VisionTransformer
from safetensors.torch import save_file
from torch import Tensor

from bench.errors import UsageError
from bench.models.encoders.convert import to_clip_vision_model
from bench.models.encoders.encoder import Encoder
from bench.models.encoders.formats import transformers_bars
from bench.train.base import CONFIG, Base

MODEL = "open_clip_model.safetensors"
VISUAL = "visual.pt"
TRANSFORMERS = "clip_vision_model"
NOT_TOKENIZER = {CONFIG, MODEL, "card.json", "README.md"}


def export(base: Base, directory: Path) -> list[Path]:
    """Write every form of a trained encoder, in float32.

    Args:
        base: with the trained image tower in it, on any device.
        directory: the run directory.

    Raises:
        UsageError: the files cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        written = [_visual(base.encoder, directory), *_hub_folder(base, directory)]
        if isinstance(base.encoder.visual, VisionTransformer):
            with transformers_bars():
                to_clip_vision_model(base.encoder.visual).save_pretrained(directory / TRANSFORMERS)
            written.append(directory / TRANSFORMERS)
    except OSError as error:
        raise UsageError(
            f"cannot write the trained model to {directory}: {error.strerror}; fix that and run the same command, "
            "which goes on from the checkpoint"
        ) from error
    return written


def visual_state(encoder: Encoder) -> dict[str, Tensor]:
    """The image tower's state dict, under the names of the published checkpoints."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.visual.state_dict().items()}


def _visual(encoder: Encoder, directory: Path) -> Path:
    torch.save(visual_state(encoder), directory / VISUAL)
    return directory / VISUAL


def _hub_folder(base: Base, directory: Path) -> list[Path]:
    text: Any = base.encoder.text.clip
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in text.state_dict().items()}
    whole |= {f"visual.{name}": tensor for name, tensor in visual_state(base.encoder).items()}
    save_file(whole, directory / MODEL)
    (directory / MODEL).chmod((directory / VISUAL).stat().st_mode & 0o777)  # safetensors makes it the owner's alone
    config = {"model_cfg": base.model_cfg, "preprocess_cfg": base.preprocess_cfg}
    (directory / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    if base.folder is not None and base.folder.resolve() != directory.resolve():
        for file in base.folder.glob("*.json"):
            if file.name not in NOT_TOKENIZER:
                shutil.copy(file, directory / file.name)
    return [directory / MODEL, directory / CONFIG]


def blend(base: Base, trained: dict[str, Tensor], share: float) -> None:
    """Put ``share`` of the trained tower and the rest of the original into the base (WiSE-FT, arXiv 2109.01903).

    Raises:
        UsageError: the towers differ, or the share lies outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise UsageError(f"the trained share must lie in [0, 1]; got {share}")
    original = base.encoder.visual.state_dict()
    wrong = [k for k in original.keys() | trained.keys() if _size(original, k) != _size(trained, k)]
    if wrong:
        raise UsageError(f"the two towers differ in {len(wrong)} tensors, e.g. {sorted(wrong)[:3]}")
    mixed = {name: _between(tensor, trained[name], share) for name, tensor in original.items()}
    base.encoder.visual.load_state_dict(mixed)


def _between(original: Tensor, trained: Tensor, share: float) -> Tensor:
    if not original.is_floating_point():
        return trained
    return torch.lerp(original.float(), trained.float(), share).to(original.dtype)


def _size(state: dict[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(state[name].shape) if name in state else None
