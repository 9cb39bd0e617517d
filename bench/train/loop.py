"""A resumable training loop: AdamW, linear warm-up, cosine decay, atomic checkpoints.

The loop owns the optimiser and the step counter; a recipe gives it one function, step index -> loss or gradients. What
an update depends on is drawn from the step index (`step_generator`) or saved in the checkpoint, so a resumed run takes
the very steps of an uninterrupted one.
"""

import json
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from bench.errors import UsageError
from bench.train.checkpoint import CHECKPOINT, Run, Stateful, TrainingError, prepare_directory
from bench.train.distributed import World

__all__ = ["Hooks", "Schedule", "TrainingError", "Update", "fit", "step_generator", "train"]

LOG_EVERY = 10
EXPLODED = 100.0  # times the median of the last losses
LEAST = 10  # losses, before one is called exploded


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

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1:
            raise UsageError(f"steps and batch must be at least 1; got {self.steps} and {self.batch}")
        if not 0 <= self.warmup <= self.steps:
            raise UsageError(f"the warm-up must take between 0 and all {self.steps} steps; got {self.warmup}")
        if not 0 < self.learning_rate < math.inf or not 0 <= self.weight_decay < math.inf:
            raise UsageError(f"the learning rate must be positive and the weight decay not negative; got "
                             f"{self.learning_rate} and {self.weight_decay}")  # fmt: skip

    def rate(self, step: int) -> float:
        """Learning rate of update ``step`` (counted from 0)."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


class Update(NamedTuple):
    """What one step has to say once its gradients lie in the parameters."""

    loss: float
    figures: dict[str, float]


def _nothing(step: int) -> str:
    return ""


def _unobserved(row: dict[str, float]) -> None:
    return None


@dataclass(frozen=True)
class Hooks:
    """What a run adds to the bare loop.

    Args:
        rate: learning rate of an update, in place of the schedule's.
        describe: the images of the last step, for error messages.
        position: the place in the data, saved and restored with the weights.
        observe: sees every logged row.
        evaluate: updates done -> figures of a held-out set.
        evaluate_every: updates between evaluations; there is one at the end, too.
        world: the processes that train together.
    """

    rate: Callable[[int], float] | None = None
    describe: Callable[[int], str] = _nothing
    position: Stateful | None = None
    observe: Callable[[dict[str, float]], None] = _unobserved
    evaluate: Callable[[int], dict[str, float]] | None = None
    evaluate_every: int = 1000
    world: World = field(default_factory=World)


def logged(step: int, schedule: Schedule) -> bool:
    """Whether a step's figures are shown: every tenth, and the last."""
    return step % LOG_EVERY == 0 or step + 1 == schedule.steps


def step_generator(seed: int, step: int, device: torch.device | str = "cpu") -> torch.Generator:
    """The random stream of one training step."""
    return torch.Generator(device).manual_seed(seed * 1_000_003 + step)


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
    """Train the modules in place on a loss; see `train`.

    Args:
        name: shown on the progress bar.
        trained: the modules to save; those of their parameters that require gradients are optimised.
        loss_of_step: step index -> (scalar loss, figures to log).
        schedule: optimisation settings.
        directory: for ``checkpoint.pt`` and ``metrics.jsonl``.
        settings: whatever else defines the run; a checkpoint of other settings is refused.
        checkpoint_every: steps between checkpoints.
    """

    def gradients(step: int) -> Update:
        loss, figures = loss_of_step(step)
        loss.backward()
        return Update(loss.item(), figures)

    train(name, trained, gradients, schedule, directory, settings=settings, checkpoint_every=checkpoint_every)


def train(
    name: str,
    trained: Mapping[str, nn.Module],
    gradients: Callable[[int], Update],
    schedule: Schedule,
    directory: Path,
    *,
    settings: Mapping[str, object],
    checkpoint_every: int = 100,
    hooks: Hooks | None = None,
) -> None:
    """Train the modules in place; resume from ``directory`` when a checkpoint of the same settings lies there.

    Args:
        name: shown on the progress bar.
        trained: the modules to save; those of their parameters that require gradients are optimised.
        gradients: step index -> its loss and figures, with the gradients left in the parameters.
        schedule: optimisation settings.
        directory: for ``checkpoint.pt`` and ``metrics.jsonl``.
        settings: whatever else defines the run; a checkpoint of other settings is refused.
        checkpoint_every: steps between checkpoints.
        hooks: data position, evaluation, other processes.

    Raises:
        TrainingError: the loss or a gradient is not finite or explodes, the checkpoint belongs to other settings or
            another architecture, or the directory cannot be written.
    """
    hooks = hooks or Hooks()
    prepare_directory(directory, trained)
    identity = json.loads(json.dumps({"schedule": asdict(schedule), **settings}))
    parameters = [p for module in trained.values() for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=schedule.learning_rate, betas=schedule.betas, weight_decay=schedule.weight_decay,
        fused=all(p.is_cuda for p in parameters),
    )  # fmt: skip
    run = Run(directory / CHECKPOINT, trained, optimizer, identity, hooks.position)
    first = _same_everywhere(run.resume(), hooks.world)
    log = _Log(name, directory / "metrics.jsonl", schedule, hooks, first)
    guard = _Guard(name, run, hooks.describe)
    with closing(log):
        for step in range(first, schedule.steps):
            rate = (hooks.rate or schedule.rate)(step)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
            update = gradients(step)
            guard.check_loss(step, update.loss)
            guard.check_gradient(step, _norm(parameters, schedule.clip_norm))
            optimizer.step()
            done = step + 1
            log.note(step, rate, update)
            if hooks.evaluate is not None and (done % hooks.evaluate_every == 0 or done == schedule.steps):
                log.write({"step": step, **hooks.evaluate(done)})
            if done % checkpoint_every == 0 or done == schedule.steps:
                if hooks.world.main:
                    run.save(done)
                hooks.world.wait()


def _same_everywhere(step: int, world: World) -> int:
    """The step that every process resumes from."""
    if len(found := {*world.gather(step)}) > 1:
        raise TrainingError(f"the processes found checkpoints of different steps, {sorted(found, key=str)}: the output "
                            "directory must lie on a disk that all of them share")  # fmt: skip
    return step


def _norm(parameters: list[nn.Parameter], clip: float | None) -> float:
    """Total norm of the gradients, clipped to ``clip`` where one is given."""
    if clip is not None:
        return nn.utils.clip_grad_norm_(parameters, clip).item()
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]).item()


class _Guard:
    """Stops a run that has gone wrong before its weights do."""

    def __init__(self, name: str, run: Run, describe: Callable[[int], str]) -> None:
        self._name, self._checkpoint, self._describe = name, run.path, describe
        self._recent = run.recent

    def check_loss(self, step: int, loss: float) -> None:
        if not math.isfinite(loss):
            self.stop(step, f"the loss is {loss} at step {step}")
        if len(self._recent) >= LEAST:
            usual = statistics.median(map(abs, self._recent))
            if abs(loss) > EXPLODED * usual:
                self.stop(step, f"the loss exploded to {loss:.4g} at step {step} (median before it: {usual:.4g})")
        self._recent.append(loss)

    def check_gradient(self, step: int, norm: float) -> None:
        if not math.isfinite(norm):
            self.stop(step, f"the gradient has norm {norm} at step {step}")

    def stop(self, step: int, what: str) -> None:
        kept = f"the last good checkpoint is {self._checkpoint}" if self._checkpoint.exists() else "no checkpoint yet"
        images = self._describe(step)
        raise TrainingError(
            f"{self._name}: {what}; {kept}. {f'Images of that step: {images}. ' if images else ''}"
            "Lower the learning rate, or look at that step's batch."
        )


class _Log:
    """Progress bar, metrics.jsonl and observers."""

    def __init__(self, name: str, path: Path, schedule: Schedule, hooks: Hooks, first: int) -> None:
        self._path, self._schedule, self._hooks, self._first = path, schedule, hooks, first
        self._started = self._last = time.monotonic()
        self._last_step = first
        self._bar = tqdm(
            desc=name, initial=first, total=schedule.steps, mininterval=5, unit="step", disable=not hooks.world.main
        )
        if hooks.world.main and path.exists():
            _keep_rows_before(first, path)

    def note(self, step: int, rate: float, update: Update) -> None:
        """One update is done; every tenth is written."""
        self._bar.update()
        if not logged(step, self._schedule):
            return
        now = time.monotonic()
        speed = (step + 1 - self._last_step) * self._schedule.batch / max(now - self._last, 1e-9)
        self._last, self._last_step = now, step + 1
        row = {"step": step, "loss": update.loss, "rate": rate, **update.figures}
        row |= {"images_per_second": round(speed, 2), "seconds": round(now - self._started, 1)}
        self.write(row)
        self._bar.set_postfix(
            {k: f"{v:.3g}" for k, v in {**update.figures, "loss": update.loss, "lr": rate, "images/s": speed}.items()}
        )

    def write(self, row: dict[str, float]) -> None:
        """Append a row and show it to the observers."""
        if not self._hooks.world.main:
            return
        try:
            with self._path.open("a") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise TrainingError(f"cannot write {self._path}: {error.strerror}; fix that and run again") from error
        self._hooks.observe(row)

    def close(self) -> None:
        self._bar.close()


def _keep_rows_before(first: int, path: Path) -> None:
    """Drop the rows of steps that will be taken again; a crash leaves the file as it was."""
    kept = [line for line in path.read_text().splitlines() if _step_of(line) < first]
    shorter = path.with_suffix(".tmp")
    try:
        shorter.write_text("".join(line + "\n" for line in kept))
        os.replace(shorter, path)
    except OSError as error:
        raise TrainingError(f"cannot write {path}: {error.strerror}; fix that and run again") from error


def _step_of(line: str) -> float:
    """The step of a row; infinity for a row that a crash cut short, so that it goes."""
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError):
        return math.inf
