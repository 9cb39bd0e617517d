"""Small checkpoints on random weights, written in the publishers' own formats by the publishers' own writers."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import set_model_preprocess_cfg
from open_clip.push_to_hf_hub import save_config_for_hf
from safetensors.torch import save_file
from torch import nn
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
)

from bench.models.encoders.catalogue import PixelFacts, resolve_path

OPENAI = PixelFacts(open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD, "bicubic")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKENIZER = Path(resolve_path("package:mini/weights/clip"))
VISION = {"image_size": 28, "patch_size": 7, "width": 32, "layers": 3, "head_width": 16}
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}


def randomise(model: nn.Module, seed: int) -> nn.Module:
    """Random weights large enough that activations, norms and biases all matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, generator=generator) * (0.5 if parameter.ndim < 2 else 0.2)
            parameter.copy_(1 + values if "norm" in name or "ln_" in name else values)
    return model.eval()


def open_clip_config(**model: Any) -> dict[str, Any]:
    return {"embed_dim": 24, "vision_cfg": dict(VISION), "text_cfg": dict(TEXT), **model}


def open_clip_model(config: dict[str, Any], seed: int = 0) -> nn.Module:
    return randomise(open_clip.CLIP(**config), seed)


def open_clip_folder(
    folder: Path,
    config: dict[str, Any] | None = None,
    pixels: dict[str, Any] | None = None,
    seed: int = 0,
    weights: str = "open_clip_model.safetensors",
) -> nn.Module:
    """An open_clip folder as on the hub; returns the model in it."""
    config = config or open_clip_config()
    model = open_clip_model(config, seed)
    pixels = {"mean": OPENAI.mean, "std": OPENAI.std} if pixels is None else pixels
    set_model_preprocess_cfg(model, {"size": VISION["image_size"], "mode": "RGB", **pixels})
    folder.mkdir(parents=True, exist_ok=True)
    state = model.state_dict()
    save_file(state, folder / weights) if weights.endswith("safetensors") else torch.save(state, folder / weights)
    save_config_for_hf(model, folder / "open_clip_config.json", model_config=config)
    return model


def clip_model_folder(
    folder: Path,
    activation: str = "quick_gelu",
    processor: bool = True,
    tokenizer: bool = True,
    seed: int = 0,
    text: dict[str, Any] | None = None,
    vision: dict[str, Any] | None = None,
) -> CLIPModel:
    """A transformers CLIPModel folder; returns the model in it."""
    words = {
        "hidden_size": 16,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": 87,
        "max_position_embeddings": 24,
        "hidden_act": activation,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "pad_token_id": 0,
        **(text or {}),
    }
    config = CLIPConfig(
        vision_config=vision_config(activation, **(vision or {})).to_dict(),
        text_config=words,
        projection_dim=24,
    )
    model = randomise(CLIPModel(config), seed)
    model.save_pretrained(folder)
    if processor:
        image_processor().save_pretrained(folder)
    if tokenizer:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(TOKENIZER / name, folder)
    return model


def vision_config(activation: str = "quick_gelu", **changes: Any) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        **{
            "hidden_size": 32,
            "intermediate_size": 72,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 7,
            "projection_dim": 24,
            "hidden_act": activation,
            **changes,
        }
    )


def image_processor(size: int = 28) -> CLIPImageProcessor:
    return CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})


def vision_model_folder(
    folder: Path,
    activation: str = "gelu",
    projected: bool = False,
    processor: bool = True,
    seed: int = 0,
    **changes: Any,
) -> CLIPVisionModel | CLIPVisionModelWithProjection:
    """A transformers CLIPVisionModel folder; returns the model in it."""
    kind = CLIPVisionModelWithProjection if projected else CLIPVisionModel
    model = randomise(kind(vision_config(activation, **changes)), seed)
    model.save_pretrained(folder)
    if processor:
        image_processor().save_pretrained(folder)
    return model


def into_hub_cache(folder: Path, cache: Path, repository: str, commit: str = COMMIT, main: bool = True) -> Path:
    """Lay a folder's files into a Hugging Face cache, as a download does; returns the snapshot."""
    root = cache / f"models--{repository.replace('/', '--')}"
    snapshot = root / "snapshots" / commit
    for part in (snapshot, root / "blobs", root / "refs"):
        part.mkdir(parents=True, exist_ok=True)
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        blob = root / "blobs" / sha256(path)
        shutil.copy(path, blob)
        (snapshot / path.name).symlink_to(f"../../blobs/{blob.name}")
    if main:
        (root / "refs" / "main").write_text(commit)
    return snapshot


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
