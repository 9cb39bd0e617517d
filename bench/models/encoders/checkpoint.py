"""Weights files: what they must be, how they are read, and whether they fit a module."""

import hashlib
import json
import pickle
import string
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bench.errors import UsageError

WRAPPERS = ("vision_encoder_state_dict", "state_dict")  # keys of the paper's trainer and of open_clip's

_TEXT = frozenset(string.printable.encode())  # weights files begin with other bytes, too


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a flat state dict from ``.safetensors``, or with ``weights_only=True`` from any other file.

    One level of wrapping (under `WRAPPERS`) and the prefix "module." of parallel training are taken off.

    Raises:
        UsageError: the file is missing, is not a checkpoint (an HTML page, a git-lfs pointer), holds no tensors, or
            holds NaN.
    """
    check_file(path)
    state = _loaded(path)
    for wrapper in WRAPPERS:
        state = state.get(wrapper, state) if isinstance(state, dict) else {}
    if not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise UsageError(f"{path} is not a state dict of tensors (nor one under a key of {WRAPPERS})")
    if bad := [k for k, v in state.items() if v.is_floating_point() and not v.isfinite().all()]:
        raise UsageError(f"{path} holds NaN or infinite weights in {bad[:3]}; the checkpoint is damaged")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _loaded(path: Path) -> Any:
    try:
        with warnings.catch_warnings(action="ignore"):  # about pickles that are refused just below
            return load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"{path} is not a checkpoint that can be read: it is damaged, or holds Python objects, which could run "
            "code, beside tensors; download it again, or save its model's state_dict() and give that"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, json.JSONDecodeError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise UsageError(f"{path} is not a checkpoint that can be read ({reason}); download it again") from error


def check_file(path: Path) -> None:
    """Refuse what is no weights file at all.

    Raises:
        UsageError: the file is missing, empty or a text file, such as an HTML page or a git-lfs pointer.
    """
    if not path.is_file():
        raise UsageError(f"no such checkpoint: {path}; fix the path, or download it to that place")
    with path.open("rb") as file:
        head = file.read(64)
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
