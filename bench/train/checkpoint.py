"""Checkpoints: written atomically, with everything that the next update depends on."""

import os
import random
import shutil
import warnings
import zipfile
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import nn

from bench.errors import UsageError
from bench.trust.places import no_links

CHECKPOINT = "checkpoint.pt"
REMEMBERED = 50  # losses
_FORM = {"identity": dict, "step": int, "modules": dict, "optimizer": dict, "random": dict}  # of a checkpoint
PLACES = ("arch", "weights", "data")  # settings that may name a path
FLAGS = {  # how `bench train` calls what makes another run of one
    "arch": "--arch",
    "weights": "--weights",
    "weights_sha256": "--weights of SHA-256",
    "data": "--data",
    "fingerprint": "--data with",
    "held_out": "--eval-images (held out)",
    "bfloat16": "--bf16",
    "classnames": "class names (--classnames) of SHA-256",
    "recipe.objective": "the objective",
    "recipe.eps_255": "--eps",
    "recipe.inner_steps": "--inner-steps",
    "recipe.inner_step_255": "--inner-step",
    "recipe.ramp": "--ramp",
    "recipe.seed": "--seed",
    "recipe.attack": "--attack",
    "recipe.clean_weight": "--clean-weight",
    "recipe.flaws": "--flaw",
    "schedule.steps": "--steps",
    "schedule.batch": "--batch",
    "schedule.learning_rate": "--lr",
    "schedule.warmup": "--warmup",
    "schedule.weight_decay": "--weight-decay",
}


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

    ``recent`` are the last losses, with which the next is compared.
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
        _refuse_changes(self.path, flat(state["identity"]), flat(self.identity))
        self._load_modules(state["modules"])
        try:
            self._load_rest(state)
        except Exception as error:  # whatever torch, numpy and random raise at values that are none of theirs
            raise _damaged(self.path) from error
        return cast(int, state["step"])

    def _load_modules(self, states: dict[str, Any]) -> None:
        for key, module in self.modules.items():
            try:
                module.load_state_dict(states[key])
            except (RuntimeError, KeyError, TypeError, AttributeError) as error:
                raise TrainingError(
                    f"{self.path} does not fit the architecture of {key}: {str(error).splitlines()[-1].strip()}; give "
                    "another output directory"
                ) from error

    def _load_rest(self, state: dict[str, Any]) -> None:
        """Optimizer, place in the data, random states, last losses."""
        groups = self.optimizer.state_dict()["param_groups"]  # what they hold follows from the schedule
        self.optimizer.load_state_dict({"state": state["optimizer"]["state"], "param_groups": groups})
        _check_memory(self.optimizer)
        if self.position is not None:
            self.position.load_state_dict(state["position"])
        restore_random_states(state["random"])
        self.recent.extend(float(loss) for loss in state.get("recent", ()))


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
        UsageError: there is a link in it, which writing would follow.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        refuse_links(directory)
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


def refuse_links(directory: Path) -> None:
    """See that nothing in a run directory is a link.

    Raises:
        UsageError: something is.
    """
    for parent, folders, files in os.walk(directory):
        for name in (*folders, *files):
            no_links(Path(parent) / name)


def _read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, whole and of the right form."""
    try:
        if zipfile.ZipFile(path).testzip() is not None:  # torch does not look at the checksums
            raise _damaged(path)
        with warnings.catch_warnings(action="ignore"):  # about pickles that are refused just below
            state = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise TrainingError(f"may not read {path}; fix its permission") from error
    except TrainingError:
        raise
    except Exception as error:  # zipfile and torch raise nearly anything at damaged bytes; torch advises to run them
        raise _damaged(path) from error
    if not isinstance(state, dict) or not all(isinstance(state.get(key), kind) for key, kind in _FORM.items()):
        raise TrainingError(f"{path} is no checkpoint of bench train; move it away, or give another output directory")
    if isinstance(state["step"], bool) or state["step"] < 0:
        raise _damaged(path)
    return state


def _damaged(path: Path) -> TrainingError:
    return TrainingError(f"{path} is damaged; remove it to start again, or put back a copy of it")


def _check_memory(optimizer: torch.optim.Optimizer) -> None:
    """That what AdamW remembers of a weight is whole, finite, of the weight's shape, and not below 0 where it counts.

    Raises:
        ValueError: it is not.
        KeyError: something is missing.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"] if optimizer.state else ():
            memory = optimizer.state[parameter]
            for key, shape in (("step", ()), ("exp_avg", parameter.shape), ("exp_avg_sq", parameter.shape)):
                if memory[key].shape != shape or not memory[key].isfinite().all():
                    raise ValueError(f"{key} of another shape, or not finite")
            if memory["step"] < 0 or (memory["exp_avg_sq"] < 0).any():
                raise ValueError("a count or a square below 0")


def _refuse_changes(path: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    for key in sorted(old.keys() | new.keys(), key=lambda key: (key not in FLAGS, key)):
        if _place(key, old.get(key)) != _place(key, new.get(key)):
            raise TrainingError(
                f"{path} was trained with {FLAGS.get(key, key)} {old.get(key)!r}, this run has {new.get(key)!r}; give "
                "another output directory, or remove that one to start again"
            )


def _place(key: str, value: Any) -> Any:
    """A setting as it is compared: the place that a path names, however it is spelled."""
    if key not in PLACES or not isinstance(value, str):
        return value
    kind, colon, where = value.rpartition(":") if key == "data" else ("", "", value)
    path, question, query = where.partition("?")
    return kind + colon + (os.path.realpath(path) if os.path.exists(path) else path) + question + query


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping with one level of keys: "recipe.schedule.steps"."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).splitlines()[0] if str(error) else type(error).__name__
