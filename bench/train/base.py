"""The model that training starts from: any architecture of open_clip."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import open_clip
import torch
from open_clip.transformer import QuickGELU
from safetensors import SafetensorError
from torch import nn

from bench.errors import UsageError
from bench.models.encoders.encoder import Encoder, TextTower
from bench.models.encoders.formats import load_file, open_clip_folder
from bench.models.encoders.pixel_configs import of_open_clip
from bench.trust import code as trust

CONFIG = "open_clip_config.json"
RANDOM = "random"


@dataclass
class Base:
    """An encoder, and what an open_clip hub folder says of it."""

    encoder: Encoder
    model_cfg: dict[str, Any]
    preprocess_cfg: dict[str, Any]
    folder: Path | None = None  # where tokenizer files lie, if the model came from a folder


def load_base(arch: str, weights: str | None, *, seed: int = 0) -> Base:
    """Build an encoder.

    Args:
        arch: an architecture of open_clip such as ``ViT-L-14``, ``hf-hub:...``, or a folder with open_clip_config.json.
        weights: a pretrained tag such as ``openai``, a file (an image tower or a whole CLIP), or "random"; None for
            the folder's or the hub's own.
        seed: of random weights.

    Raises:
        UsageError: open_clip does not know or cannot load it.
    """
    folder = Path(arch) if Path(arch).is_dir() else None
    if weights is None and folder is None and not arch.startswith("hf-hub:"):
        raise UsageError(f"--weights is missing for {arch}: a tag such as openai, a file, or {RANDOM}")
    torch.manual_seed(seed)
    if folder is not None and weights != RANDOM:
        return _of_folder(folder, weights)
    file = Path(weights) if weights is not None and Path(weights).is_file() else None
    identifier = f"local-dir:{arch}" if folder else arch
    clip, tokenizer = _of_open_clip(identifier, None if file else weights)
    if file is not None:
        load_file(clip, file)
    return _base(clip, tokenizer, _model_config(arch, folder, clip), arch, folder)


def _base(clip: Any, tokenizer: Any, model_cfg: dict[str, Any], arch: str, folder: Path | None) -> Base:
    config = json.loads(json.dumps(clip.visual.preprocess_cfg))  # as it is exported: lists for tuples
    preprocessing = of_open_clip(config, clip.visual.image_size, arch)
    visual, clip.visual = clip.visual, nn.Identity()
    return Base(Encoder(visual, preprocessing, TextTower(clip, tokenizer)), model_cfg, config, folder)


def _of_folder(folder: Path, weights: str | None) -> Base:
    """The model of a folder, with its weights or those of a file."""
    loaded = open_clip_folder(folder)
    if weights is not None:
        if not Path(weights).is_file():
            raise UsageError(f"--weights {weights}: with the folder {folder}, give a file or {RANDOM}, or leave it out")
        load_file(loaded.clip, Path(weights))
    return _base(loaded.clip, loaded.tokenizer, loaded.architecture, str(folder), folder)


def _of_open_clip(identifier: str, weights: str | None) -> tuple[Any, Any]:
    """A model and its tokenizer, as open_clip itself loads them."""
    try:
        options = trust.check_open_clip(identifier)
        with trust.never_asking():
            tag = None if weights == RANDOM else weights
            clip = open_clip.create_model(identifier, pretrained=tag, load_weights=weights != RANDOM)
        return clip, open_clip.get_tokenizer(identifier, **options)
    except UsageError:
        raise
    except (RuntimeError, ValueError, OSError, SafetensorError, KeyError, TypeError, AssertionError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UsageError(f"open_clip cannot load {identifier} with weights {weights}: {reason}") from error


def _model_config(arch: str, folder: Path | None, clip: nn.Module) -> dict[str, Any]:
    """open_clip's configuration, with the activation that the weights were trained with."""
    if folder is not None:
        return cast(dict[str, Any], json.loads((folder / CONFIG).read_text())["model_cfg"])
    found = open_clip.get_model_config(arch)
    if found is None:
        raise UsageError(f"open_clip has no configuration of {arch}")
    config: dict[str, Any] = json.loads(json.dumps(found))
    if any(isinstance(module, QuickGELU) for module in clip.modules()):
        config["quick_gelu"] = True
    return config
