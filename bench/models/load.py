"""From a catalogue row, a path or a plugin to an Encoder."""

import hashlib
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import open_clip
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bench import registry
from bench.errors import UsageError
from bench.models import catalogue
from bench.models.catalogue import EncoderRow
from bench.models.encoder import Encoder, Preprocessing, TextTower

WRAPPER = "vision_encoder_state_dict"  # the key under which the paper's trainer saves the image tower


def load_encoder(name: str, suite: str = "mini") -> Encoder:
    """Load an encoder by catalogue name, alias, plugin name, or path to a checkpoint.

    A path is an image-tower state dict (``.safetensors`` or ``.pt``) for the suite's plain CLIP, or an open_clip
    folder (``open_clip_config.json`` beside the weights).

    Raises:
        UsageError: unknown name, missing file, a file that is no checkpoint or does not fit the architecture.
    """
    rows = catalogue.rows(suite)
    name = catalogue.aliases().get(name, name)
    if name in rows:
        return _from_row(rows[name])
    if name in registry.names("bench.encoders"):
        return cast(Callable[[], Encoder], registry.resolve("bench.encoders", name))()
    if Path(name).exists() or "/" in name or name.endswith((".pt", ".pth", ".safetensors")):
        return _from_row(_row_of_path(Path(name), rows.get("clip")))
    raise registry.unknown("encoder", name, known(suite))


def known(suite: str) -> list[str]:
    """Every encoder name a suite answers to."""
    return [*catalogue.rows(suite), *catalogue.aliases(), *registry.names("bench.encoders")]


def digest(module: nn.Module) -> str:
    """SHA-256 over the names, shapes and float32 values of a module's state."""
    total = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        values = tensor.detach().cpu().float().contiguous()
        total.update(f"{name}{tuple(values.shape)}".encode())
        total.update(values.numpy().tobytes())
    return total.hexdigest()


def _row_of_path(path: Path, plain: EncoderRow | None) -> EncoderRow:
    if path.is_dir():
        if not (path / "open_clip_config.json").is_file():
            raise UsageError(f"{path} is a folder without open_clip_config.json; give an open_clip folder or a file")
        return EncoderRow(path.name, model=str(path))
    if plain is None:
        raise UsageError(f"{path} is an image tower, and the suite has no plain CLIP to put it into; give a folder")
    return replace(plain, name=path.stem, visual=str(path))


def _from_row(row: EncoderRow) -> Encoder:
    model = catalogue.resolve_path(row.model)
    identifier = f"local-dir:{model}" if Path(model).is_dir() else model
    try:
        clip = open_clip.create_model(identifier, pretrained=row.pretrained)
    except (RuntimeError, ValueError, OSError, SafetensorError) as error:
        raise UsageError(f"encoder {row.name!r}: open_clip cannot load {model}: {error}") from error
    tokenizer = open_clip.get_tokenizer(identifier)
    if row.visual is not None:
        _replace_tower(clip.visual, Path(catalogue.resolve_path(row.visual)))
    config = clip.visual.preprocess_cfg
    size = config["size"] if isinstance(config["size"], int) else config["size"][0]
    preprocessing = Preprocessing(size, tuple(config["mean"]), tuple(config["std"]), config["interpolation"])
    visual, clip.visual = clip.visual, nn.Identity()
    return Encoder(visual, preprocessing, TextTower(clip, tokenizer))


def _replace_tower(visual: nn.Module, path: Path) -> None:
    state = read_state_dict(path)
    expected = visual.state_dict()
    missing, surplus = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    misfits = [k for k in expected.keys() & state.keys() if expected[k].shape != state[k].shape]
    if missing or surplus or misfits:
        raise UsageError(
            f"{path} does not fit the image tower: {len(missing)} tensors missing {missing[:2]}, {len(surplus)} "
            f"unknown {surplus[:2]}, {len(misfits)} of another shape {misfits[:2]}; is it of another architecture?"
        )
    if bad := [k for k, v in state.items() if v.is_floating_point() and not v.isfinite().all()]:
        raise UsageError(f"{path} holds NaN or infinite weights in {bad[:3]}; the checkpoint is damaged")
    visual.load_state_dict(state)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a flat state dict from ``.safetensors``, or from ``.pt`` with ``weights_only=True``.

    Raises:
        UsageError: the file is missing, is not a checkpoint (an HTML page, a git-lfs pointer), or holds no tensors.
    """
    if not path.is_file():
        raise UsageError(f"no such checkpoint: {path}")
    head = path.open("rb").read(64)
    if head.lstrip()[:1] == b"<" or head.startswith(b"version https://git-lfs"):
        raise UsageError(f"{path} is a text file (an HTML page or a git-lfs pointer), not weights; download it again")
    try:
        state: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, json.JSONDecodeError) as error:
        raise UsageError(f"{path} is not a checkpoint that can be read: {str(error).splitlines()[0]}") from error
    state = state.get(WRAPPER, state) if isinstance(state, dict) else {}
    if not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise UsageError(f"{path} is not a state dict of tensors (nor one under the key {WRAPPER!r})")
    return state
