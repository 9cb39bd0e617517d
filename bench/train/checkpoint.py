"""Checkpoints: written atomically, with everything that the next update depends on."""

import os
import pickle
import random
import shutil
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import nn

from bench.errors import UsageError

CHECKPOINT = "checkpoint.pt"
REMEMBERED = 50  # losses


class TrainingError(UsageError):
    """Training cannot go on; the message names the step and the remedy."""


class Stateful(Protocol):
    """Something whose place in the data is saved."""

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to that place."""


@dataclass
class Run:
    """What a checkpoint holds: modules, optimizer, place in the data; ``identity`` is what must not change.

    ``recent`` are the last losses, by which the next is judged.
    """

    path: Path
    modules: Mapping[str, nn.Module]
    optimizer: torch.optim.Optimizer
    identity: dict[str, Any]
    position: Stateful | None = None
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def save(self, step: int) -> None:
        """Write the state after ``step`` updates; a crash at any moment leaves the older checkpoint.

        Raises:
            TrainingError: the disk is full, or may not be written.
        """
        state = {
            "identity": self.identity,
            "step": step,
            "modules": {key: module.state_dict() for key, module in self.modules.items()},
            "optimizer": self.optimizer.state_dict(),
            "position": None if self.position is None else self.position.state_dict(),
            "random": random_states(),
            "recent": list(self.recent),
        }
        temporary = self.path.with_suffix(".tmp")
        try:
            with temporary.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        except (OSError, RuntimeError) as error:
            temporary.unlink(missing_ok=True)
            raise TrainingError(
                f"cannot write {self.path} after step {step}: {_reason(error)}; the one before it is whole: make "
                "room or fix the permission and run the same command"
            ) from error

    def resume(self) -> int:
        """Load the checkpoint, if there is one; returns the number of updates done.

        Raises:
            TrainingError: it is damaged, of other settings, or of another architecture.
        """
        if not self.path.exists():
            return 0
        state = _read(self.path)
        _refuse_changes(self.path, _flat(state["identity"]), _flat(self.identity))
        for key, module in self.modules.items():
            try:
                module.load_state_dict(state["modules"][key])
            except (RuntimeError, KeyError) as error:
                raise TrainingError(
                    f"{self.path} does not fit the architecture of {key}: {str(error).splitlines()[-1].strip()}; give "
                    "another output directory"
                ) from error
        self.optimizer.load_state_dict(state["optimizer"])
        if self.position is not None:
            self.position.load_state_dict(state["position"])
        restore_random_states(state["random"])
        self.recent.extend(state.get("recent", ()))
        return int(state["step"])


def random_states() -> dict[str, Any]:
    """States of torch's, numpy's and Python's global generators, as plain values and tensors."""
    name, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest],
        "python": random.getstate(),
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Undo every draw since `random_states`."""
    torch.set_rng_state(states["torch"])
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    random.setstate(states["python"])


def prepare_directory(directory: Path, modules: Mapping[str, nn.Module]) -> None:
    """Create the output folder and see that it can be written and holds two checkpoints.

    Raises:
        TrainingError: no permission, a file in the way, or too little room.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / ".writable"
        probe.touch()
        probe.unlink(missing_ok=True)  # another process of this run may have been faster
    except OSError as error:
        raise TrainingError(f"cannot write in {directory}: {_reason(error)}; give another --output") from error
    weights = sum(p.numel() * p.element_size() for m in modules.values() for p in m.state_dict().values())
    needed, free = 2 * 3 * weights, shutil.disk_usage(directory).free  # weights and two moments, old and new
    old = directory / CHECKPOINT
    if free + (old.stat().st_size if old.exists() else 0) < needed:
        raise TrainingError(
            f"{directory} has {free / 1e9:.1f} GB free; two checkpoints of this model need {needed / 1e9:.1f} GB"
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        return cast(dict[str, Any], torch.load(path, map_location="cpu", weights_only=True))
    except PermissionError as error:
        raise TrainingError(f"may not read {path}; fix its permission") from error
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, KeyError) as error:
        raise TrainingError(
            f"{path} is damaged ({_reason(error)}); remove it to start again, or put back a copy of it"
        ) from error


def _refuse_changes(path: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            raise TrainingError(
                f"{path} was trained with {key} = {old.get(key)!r}, this run has {new.get(key)!r}; give another output "
                "directory, or remove that one to start again"
            )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).splitlines()[0] if str(error) else type(error).__name__
