"""Weights files: what they must be, how they are read, and whether they fit a module."""

import hashlib
import json
import pickle
import string
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from bench.errors import UsageError
from bench.models.encoders.torchscript import is_torchscript, read_torchscript
from bench.trust import code as trust

WRAPPERS = ("vision_encoder_state_dict", "state_dict")  # keys of the paper's trainer and of open_clip's
TRANSFORMERS_FILES = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
PARENTS = ("model.", "vision_encoder.", "visual.")
"""Modules that an image tower is saved as a part of, as Sim-CLIP's in ``model.vision_encoder``."""

_DTYPES = (
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool),
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
)
_WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_NO_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")  # beside them in OpenAI's own files
_LARGEST = {
    **{"layers": 500, "depth": 500, "heads": 500},
    **dict.fromkeys(("hidden_size", "width", "embed_dim", "intermediate_size", "projection_dim"), 65536),
    **dict.fromkeys(("image_size", "patch_size", "mlp_ratio"), 10_000),
    **dict.fromkeys(("context_length", "position_embeddings"), 8192),  # a mask has the square of it
    "vocab_size": 10_000_000,
}
_TEXT = frozenset(string.printable.encode())  # weights files begin with other bytes, too


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a flat state dict: safetensors, a pickle with ``weights_only=True``, or a TorchScript archive's tensors.

    One level of wrapping (under `WRAPPERS`), the prefix "module." of parallel training and the "_orig_mod." of
    torch.compile are taken off.

    Raises:
        UsageError: the file is missing, is not a checkpoint (an HTML page, a git-lfs pointer), holds no tensors, or
            holds NaN.
    """
    check_file(path)
    state = _loaded(path)
    for wrapper in WRAPPERS:
        state = state.get(wrapper, state) if isinstance(state, dict) else {}
    if not isinstance(state, dict) or not state or not all(_plain(k, v) for k, v in state.items()):
        raise UsageError(
            f"{path} is not a state dict of tensors (nor one under a key of {WRAPPERS}); save its model's state_dict() "
            "and give that"
        )
    _refuse_quantised({k: v.dtype in _WHOLE for k, v in state.items()}, path)
    if bad := [k for k, v in state.items() if v.is_floating_point() and not v.isfinite().all()]:
        raise UsageError(f"{path} holds NaN or infinite weights in {bad[:3]}; the checkpoint is damaged")
    named = {_without_wrappers(name): tensor for name, tensor in state.items()}
    if len(named) < len(state):
        raise UsageError(
            f"{path} holds tensors whose names differ in module. and _orig_mod. only; save one model alone"
        )
    return named


def tower_alone(state: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """The tensors of an image tower under its own names; None for those of a whole model.

    `PARENTS` are taken off where every name begins with them.
    """
    for prefix in PARENTS:
        if all(name.startswith(prefix) for name in state):
            return tower_alone({name.removeprefix(prefix): tensor for name, tensor in state.items()})
    return None if any(name.startswith("visual.") for name in state) else state


def _plain(name: object, value: object) -> bool:
    return (
        isinstance(name, str)
        and isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and value.dtype in _DTYPES
    )


def _without_wrappers(name: str) -> str:
    name = name.replace("_orig_mod.", "")
    return name.removeprefix("module.")


def _loaded(path: Path) -> Any:
    try:
        with warnings.catch_warnings(action="ignore"):  # about pickles that are refused just below
            if _is_safetensors(path):
                return load_file(path)
            if is_torchscript(path):
                found = read_torchscript(path).items()
                return {name: value for name, value in found if name.rpartition(".")[2] not in _NO_WEIGHTS}
            return torch.load(path, "cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"{path} is not a checkpoint that can be read: it is damaged, or holds Python objects, which could run "
            "code, beside tensors; download it again, or save its model's state_dict() and give that"
        ) from error
    except Exception as error:  # readers raise anything at all on damaged files
        why = trust.reason(error).split(". ")[0] or type(error).__name__
        raise UsageError(f"{path} is not a checkpoint that can be read ({why}); download it again") from error


def _is_safetensors(path: Path) -> bool:
    """By its name, or where it begins with the length of a header and a brace."""
    if path.suffix == ".safetensors":
        return True
    with path.open("rb") as file:
        head = file.read(9)
    return head[8:] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= path.stat().st_size - 8


def weights_files(folder: Path) -> list[Path]:
    """The files that transformers reads a folder's weights from, each seen to be there and to be no text.

    Raises:
        UsageError: there are none, one is missing, or the index is damaged.
    """
    for single, index in TRANSFORMERS_FILES:
        if (folder / single).is_file():  # whatever an index beside it says
            files = [single]
        elif (folder / index).is_file():
            files = _shards(folder / index)
        else:
            continue
        for name in files:
            check_file(folder / name)
            if not trust.config_of(str(folder)).get("quantization_config"):  # else transformers undoes it, or refuses
                _refuse_quantised(_stored_whole(folder / name), folder / name)
        return [folder / name for name in files]
    raise UsageError(f"{folder} holds no weights; expected {' or '.join(f'{a} or {b}' for a, b in TRANSFORMERS_FILES)}")


def _stored_whole(path: Path) -> dict[str, bool]:
    """Which tensors of a safetensors file are whole numbers; of other files, and damaged ones, nothing is known."""
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())
            return {name: file.get_slice(name).get_dtype().startswith(("I", "U")) for name in names}
    except (SafetensorError, OSError):
        return {}


def _refuse_quantised(whole: Mapping[str, bool], path: Path) -> None:
    """Refuse weights in whole numbers: without their scales they would be read as they stand."""
    if bad := [name for name, is_whole in whole.items() if is_whole and name.endswith("weight")]:
        raise UsageError(
            f"{path} holds whole numbers for weights in {bad[:2]}: quantised weights are not read; give those from "
            "before they were quantised"
        )


def _shards(index: Path) -> list[str]:
    try:
        found = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{index} cannot be read ({str(error)[:100]}); download that file again") from error
    table = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(table, dict) or not table or not all(_is_name(name) for name in table.values()):
        raise UsageError(f"{index} has no weight_map from tensors to files beside it; download that file again")
    files = sorted(set(table.values()))
    if absent := [name for name in files if not (index.parent / name).is_file()]:
        raise UsageError(
            f"{index.parent} lacks {len(absent)} of {len(files)} shards named in {index.name}: {', '.join(absent[:5])}"
        )
    return files


def _is_name(name: object) -> bool:
    return isinstance(name, str) and name == Path(name).name and name not in ("", ".", "..")


def check_file(path: Path) -> None:
    """Refuse what is no weights file at all.

    Raises:
        UsageError: the file is missing, empty or a text file, such as an HTML page or a git-lfs pointer.
    """
    if not path.is_file():
        raise UsageError(f"no such checkpoint: {path}; fix the path, or download it to that place")
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; check its permissions") from error
    if head.lstrip()[:1] == b"<" or (head and all(byte in _TEXT for byte in head)):
        raise UsageError(f"{path} is a text file (an HTML page or a git-lfs pointer?), not weights; download it again")
    if not head:
        raise UsageError(f"{path} is an empty file, not weights; download it again")


def check_digest(path: Path, sha256: str | None) -> None:
    """Refuse a file whose SHA-256 is not the published one (None: none is known).

    Raises:
        UsageError: it differs.
    """
    if sha256 is None:
        return
    check_file(path)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise UsageError(
            f"{path} has SHA-256 {found[:12]}..., its publisher's file has {sha256[:12]}...: a damaged download or "
            "another file; delete it and download it again"
        )


def check_sizes(config: Any, path: Path | str) -> None:
    """Refuse a model so large that building it alone would take all time or memory.

    Raises:
        UsageError: a number in its configuration is beyond all models; the message names the key.
    """
    entries = config.items() if isinstance(config, dict) else enumerate(config) if isinstance(config, list) else ()
    for key, value in entries:
        check_sizes(value, path)
        limit = next((most for part, most in _LARGEST.items() if part in str(key)), None)
        if limit is not None and isinstance(value, int | float) and not 0 <= value <= limit:
            raise UsageError(f"{path}: {key} = {value} is no size of a model; download that file again")


def load_fitting(module: nn.Module, state: dict[str, Tensor], path: Path, what: str) -> None:
    """Load a state dict that has exactly the names and shapes of a module.

    Raises:
        UsageError: a tensor is missing, unknown or of another shape.
    """
    expected = module.state_dict()
    missing, surplus = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    misfits = [
        f"{k} {tuple(state[k].shape)}, not {tuple(expected[k].shape)}"
        for k in sorted(expected.keys() & state.keys())
        if expected[k].shape != state[k].shape
    ]
    if missing or surplus or misfits:
        raise UsageError(
            f"{path} does not fit {what}: {len(missing)} tensors missing {missing[:2]}, {len(surplus)} "
            f"unknown {surplus[:2]}, {len(misfits)} of another shape {misfits[:2]}; is it of another architecture? "
            "--arch names that of a file given as --encoder"
        )
    module.load_state_dict(state)
