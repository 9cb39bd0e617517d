"""A resumable training loop: AdamW, linear warm-up, cosine decay, atomic checkpoints.

The loop owns the optimiser and the step counter; a recipe gives it one function, step index -> loss. A recipe draws
its data and its noise from the step index (`step_generator`), so nothing but weights, optimiser and step needs saving,
and a resumed run takes the very steps of an uninterrupted one.
"""

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from bench.errors import UsageError


class TrainingError(UsageError):
    """Training cannot go on; the message names the step and the remedy."""


@dataclass(frozen=True)
class Schedule:
    """Optimisation settings: learning rate at step n is linear up to ``warmup`` and a half cosine to 0 at ``steps``."""

    steps: int
    batch: int
    learning_rate: float
    warmup: int = 0
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float | None = None

    def rate(self, step: int) -> float:
        """Learning rate of update ``step`` (counted from 0)."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def step_generator(seed: int, step: int) -> torch.Generator:
    """The random stream of one training step."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def fit(
    name: str,
    trained: Mapping[str, nn.Module],
    loss_of_step: Callable[[int], tuple[Tensor, dict[str, float]]],
    schedule: Schedule,
    directory: Path,
    *,
    settings: Mapping[str, object],
    checkpoint_every: int = 100,
) -> None:
    """Train the modules in place; resume from ``directory`` when a checkpoint of the same settings lies there.

    Args:
        name: shown on the progress bar.
        trained: the modules to save; those of their parameters that require gradients are optimised.
        loss_of_step: step index -> (scalar loss, figures to log).
        schedule: optimisation settings.
        directory: for ``checkpoint.pt`` and ``metrics.jsonl``.
        settings: whatever else defines the run; a checkpoint of other settings is refused.
        checkpoint_every: steps between checkpoints.

    Raises:
        TrainingError: the loss is not finite, or the checkpoint belongs to other settings.
    """
    directory.mkdir(parents=True, exist_ok=True)
    identity = json.loads(json.dumps({"schedule": asdict(schedule), **settings}))
    parameters = [p for module in trained.values() for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=schedule.learning_rate, betas=schedule.betas, weight_decay=schedule.weight_decay
    )
    path = directory / "checkpoint.pt"
    first = _resume(path, trained, optimizer, identity)
    bar = tqdm(range(first, schedule.steps), desc=name, initial=first, total=schedule.steps, mininterval=5)
    started = time.monotonic()
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        loss, figures = loss_of_step(step)
        if not math.isfinite(loss.item()):
            raise TrainingError(
                f"{name}: the loss is {loss.item()} at step {step}; the last good checkpoint is {path}. "
                "Lower the learning rate, or look at that step's batch."
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if schedule.clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, schedule.clip_norm)
        optimizer.step()
        if step % 10 == 0 or step + 1 == schedule.steps:
            row = {"step": step, "loss": loss.item(), "rate": schedule.rate(step), **figures}
            row["seconds"] = round(time.monotonic() - started, 1)
            with (directory / "metrics.jsonl").open("a") as log:
                log.write(json.dumps(row) + "\n")
            bar.set_postfix({k: f"{v:.3g}" for k, v in {"loss": loss.item(), **figures}.items()})
        if (step + 1) % checkpoint_every == 0 or step + 1 == schedule.steps:
            _save(path, trained, optimizer, identity, step + 1)


def _resume(
    path: Path, trained: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, identity: dict[str, object]
) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    for key in sorted(identity.keys() | state["identity"].keys()):
        old, new = state["identity"].get(key), identity.get(key)
        if old != new:
            raise TrainingError(
                f"{path} was trained with {key} = {old!r}, this run has {new!r}; give another output directory, "
                "or remove that one to start again"
            )
    for key, module in trained.items():
        module.load_state_dict(state["modules"][key])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"]


def _save(
    path: Path,
    trained: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    identity: dict[str, object],
    step: int,
) -> None:
    state = {
        "identity": identity,
        "step": step,
        "modules": {key: module.state_dict() for key, module in trained.items()},
        "optimizer": optimizer.state_dict(),
    }
    temporary = path.with_suffix(".tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise TrainingError(f"cannot write {path}: {error.strerror}; mend that and run the same command") from error
