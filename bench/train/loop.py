"""A resumable training loop: AdamW, linear warm-up, cosine decay, atomic checkpoints.

The loop owns the optimiser and the step counter; a recipe gives it one function, step index -> loss or gradients. What
an update depends on is drawn from the step index (`step_generator`) or saved in the checkpoint, so a resumed run takes
the very steps of an uninterrupted one.
"""

import json
import math
import signal
import statistics
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.train.checkpoint import CHECKPOINT, Run, TrainingError, prepare_directory
from bench.train.distributed import World
from bench.train.hooks import Hooks, Update
from bench.train.log import Log
from bench.train.schedule import Schedule
from bench.train.stopping import Interrupted, Stop

EXPLODED = 100.0  # times the median of the last losses
LEAST = 10  # losses, before one is called exploded


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
        torch.autograd.backward(loss)
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
        Interrupted: Ctrl-C or SIGTERM, once the update under way is saved.
    """
    hooks = hooks or Hooks()
    prepare_directory(directory, trained)
    identity = json.loads(json.dumps({"schedule": asdict(schedule), **settings}))
    optimizer = optimizer_of(trained, schedule)
    run = Run(directory / CHECKPOINT, trained, optimizer, identity, hooks.position)
    first = _same_everywhere(run.resume(), hooks.world)
    with Stop() as stop, closing(Log(name, directory / "metrics.jsonl", schedule, hooks, first)) as log:
        updates = _Updates(name, run, gradients, schedule, hooks, log)
        for step in range(first, schedule.steps):
            updates.take(step)
            done, last = step + 1, step + 1 == schedule.steps
            if hooks.evaluate is not None and (done % hooks.evaluate_every == 0 or last):
                log.write({"step": step, **hooks.evaluate(done)})
            asked = stop.asked(hooks.world)
            if done % checkpoint_every == 0 or last or asked:
                _save(run, done, hooks.world)
            if asked and not last:
                raise _interrupted(asked, run, done, schedule.steps, hooks.world)


def optimizer_of(trained: Mapping[str, nn.Module], schedule: Schedule) -> torch.optim.Optimizer:
    """AdamW over those parameters of the modules that require gradients, in one kernel where torch has one."""
    parameters = [p for module in trained.values() for p in module.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        parameters,
        lr=schedule.learning_rate,
        betas=schedule.betas,
        weight_decay=schedule.weight_decay,
        fused=all(p.device.type in ("cpu", "cuda") for p in parameters),
    )


def _save(run: Run, done: int, world: World) -> None:
    """Write a checkpoint in one process, while the others wait."""
    if world.main:
        run.save(done)
    world.wait()


def _interrupted(number: int, run: Run, done: int, steps: int, world: World) -> Interrupted:
    return Interrupted(
        f"stopped by {signal.Signals(number).name} after {done} of {steps} updates, which are saved in {run.path}; the "
        "same command goes on from there",
        number,
        main=world.main,
    )


def _same_everywhere(step: int, world: World) -> int:
    """The step that every process resumes from."""
    if len(found := {*world.gather(step)}) > 1:
        raise TrainingError(
            f"the processes found checkpoints of different steps, {sorted(found, key=str)}: the output directory must "
            "lie on a disk that all of them share"
        )
    return step


class _Updates:
    """Takes one update after another, and stops before the weights of a run that has gone wrong are changed."""

    def __init__(
        self, name: str, run: Run, gradients: Callable[[int], Update], schedule: Schedule, hooks: Hooks, log: Log
    ) -> None:
        self._name, self._run, self._gradients, self._log = name, run, gradients, log
        self._rate, self._describe = hooks.rate or schedule.rate, hooks.describe
        self._clip = schedule.clip_norm
        self._parameters = [p for group in run.optimizer.param_groups for p in group["params"]]

    def take(self, step: int) -> None:
        """Update the weights once and log it."""
        optimizer, rate = self._run.optimizer, self._rate(step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        update = self._gradients(step)
        self._check_loss(step, update.loss)
        norm = _norm(self._parameters, self._clip)
        if not math.isfinite(norm):
            self._stop(step, f"the gradient has norm {norm} at step {step}")
        optimizer.step()
        self._log.note(step, rate, update)

    def _check_loss(self, step: int, loss: float) -> None:
        recent = self._run.recent
        if not math.isfinite(loss):
            self._stop(step, f"the loss is {loss} at step {step}")
        if len(recent) >= LEAST:
            usual = statistics.median(map(abs, recent))
            if abs(loss) > EXPLODED * usual:
                self._stop(step, f"the loss exploded to {loss:.4g} at step {step} (median before it: {usual:.4g})")
        recent.append(loss)

    def _stop(self, step: int, what: str) -> None:
        path = self._run.path
        kept = f"the last good checkpoint is {path}" if path.exists() else "no checkpoint yet"
        images = self._describe(step)
        raise TrainingError(
            f"{self._name}: {what}; {kept}. {f'Images of that step: {images}. ' if images else ''}"
            "Lower the learning rate, or look at that step's batch."
        )


def _norm(parameters: list[nn.Parameter], clip: float | None) -> float:
    """Total norm of the gradients, clipped to ``clip`` where one is given."""
    if clip is not None:
        return nn.utils.clip_grad_norm_(parameters, clip).item()
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]).item()
