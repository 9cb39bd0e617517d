"""One training step, with no pass that the update does not need.

Per image: one forward pass of the original (if the objective compares with it), the attack's forward and backward
passes without weight gradients, one forward and backward pass of the update. The cosines that are shown cost one more
forward pass on the steps that are logged, and none on the others.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.batch_size import is_out_of_memory
from bench.train.attack import attack
from bench.train.checkpoint import TrainingError
from bench.train.distributed import World
from bench.train.loop import Update, logged, step_generator
from bench.train.objectives import Features, Target, TrainingObjective
from bench.train.recipe import Recipe
from bench.train.towers import feature_tower, frozen, train_mode


class Batch(NamedTuple):
    """This process's images (b, 3, H, W) float32 in [0, 1], labels (b,) or None, and what to call the images."""

    images: Tensor
    labels: Tensor | None = None
    ids: Sequence[str] = ()


@dataclass(frozen=True)
class Runtime:
    """How a step is computed; none of it changes what is computed, but for rounding.

    Args:
        world: the processes that train together.
        micro_batch: images at once on this device; None for all of this process's share.
        bfloat16: autocast of the towers; weights, losses and perturbations stay float32.
        compiled: compile the towers with torch.compile.
    """

    world: World = field(default_factory=World)
    micro_batch: int | None = None
    bfloat16: bool = False
    compiled: bool = False


class Stepper:
    """Computes the gradients of one step after another.

    Args:
        tower: the tower to train, images -> (b, D).
        original: the frozen original.
        objective: loss and what it needs.
        recipe: attack and radius.
        batches: step -> this process's share of the global batch.
        classes: (D, K) class weights, for objectives with labels.
        runtime: precision, devices, micro-batches.
    """

    def __init__(
        self,
        tower: nn.Module,
        original: nn.Module,
        objective: TrainingObjective,
        recipe: Recipe,
        batches: Callable[[int], Batch],
        *,
        classes: Tensor | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        self.runtime = runtime or Runtime()
        self.objective, self.recipe, self.batches, self.classes = objective, recipe, batches, classes
        original.eval().requires_grad_(False)
        self._original = self._compile(feature_tower(original, objective))
        self._plain = feature_tower(tower, objective)
        if "batch-norm-on-attacked" in recipe.flaws and self.runtime.world.size > 1:
            if self.runtime.world.device.type != "cuda":
                raise TrainingError("batch-norm-on-attacked needs CUDA where several processes share a batch")
            self._plain = nn.SyncBatchNorm.convert_sync_batchnorm(self._plain)
        self._tower = self._compile(self._plain)
        self._parallel = self.runtime.world.parallel(self._tower)
        self._last, self._fresh = Batch(torch.empty(0)), True
        self._waited, self._since = 0.0, time.monotonic()

    def _compile(self, module: nn.Module) -> nn.Module:
        return cast(nn.Module, torch.compile(module)) if self.runtime.compiled else module

    def __call__(self, step: int) -> Update:
        """Leave the gradients of the step in the parameters.

        Raises:
            TrainingError: a loss or gradient of the attack is not finite; the memory does not suffice.
        """
        batch = self._next(step)
        images = batch.images.to(self.runtime.world.device, non_blocking=True)
        labels = None if batch.labels is None else batch.labels.to(images.device)
        noise = self._noise(step, images)
        size = self.runtime.micro_batch or len(images)
        parts = [slice(i, min(i + size, len(images))) for i in range(0, len(images), size)]
        figures: dict[str, float] = {}
        finite = []
        total = 0.0
        for number, part in enumerate(parts):
            piece = Batch(images[part], None if labels is None else labels[part])
            share = (part.stop - part.start) / len(images)
            try:
                loss, sound, found = self._accumulate(step, number, piece, noise[part], share, number == len(parts) - 1)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                raise _out_of_memory(size, len(images), self) from error
            finite.append(sound)
            total += loss * share
            for key, value in found.items():
                figures[key] = figures.get(key, 0.0) + value * share
        self._fresh = False
        self._agree_on_health(step, torch.cat(finite))
        if logged(step, self.recipe.schedule):
            figures["data_wait"] = self._share_of_waiting()
        names = list(figures)
        total, *means = self.runtime.world.mean([total, *figures.values()])
        return Update(total, dict(zip(names, means, strict=True)))

    def _next(self, step: int) -> Batch:
        before = time.monotonic()
        self._last = self.batches(step)
        self._waited += time.monotonic() - before
        if "labels" in self.objective.needs:
            check_labels(self._last, self.recipe.objective, self.classes)
        return self._last

    def _share_of_waiting(self) -> float:
        """Share of the time since the last call in which this process waited for images."""
        now = time.monotonic()
        share = self._waited / max(now - self._since, 1e-9)
        self._waited, self._since = 0.0, now
        return share

    def describe(self, step: int) -> str:
        """The images of the last step, for error messages."""
        return _listed(self._last.ids)

    def _noise(self, step: int, images: Tensor) -> Tensor:
        """Uniform noise of the whole global batch, so that it does not depend on the number of processes."""
        world = self.runtime.world
        shape = (len(images) * world.size, *images.shape[1:])
        generator = step_generator(self.recipe.seed, step, images.device)
        return torch.rand(shape, generator=generator, device=images.device)[world.share(shape[0])]

    def _accumulate(
        self, step: int, number: int, batch: Batch, noise: Tensor, share: float, last: bool
    ) -> tuple[float, Tensor, dict[str, float]]:
        """Add the gradients of a micro-batch, which is ``share`` of this process's batch."""
        shown = logged(step, self.recipe.schedule)
        anchor = self._anchor(batch.images, shown)
        target = Target(anchor, None, batch.labels, self.classes)
        with frozen(self._plain):
            clean = self._quietly(self._tower, batch.images) if "clean" in self.objective.needs or shown else None
            hostile = attack(
                lambda x: self._features(self._tower, x), self.objective.loss, batch.images,
                target._replace(clean=clean), noise, self.recipe, step,
            )  # fmt: skip
        train_mode(self._plain, batch_statistics="batch-norm-on-attacked" in self.recipe.flaws)
        torch.manual_seed(((self.recipe.seed + 1) * 1_000_003 + step) * 4096 + self.runtime.world.rank * 64 + number)
        with self._synchronised(last):
            loss, attacked = self._loss(self._parallel, hostile.images, batch.images, target)
            (loss * share).backward()
        figures = _cosines(attacked, clean, anchor) if shown else {}
        return loss.item(), hostile.finite, figures

    def _anchor(self, images: Tensor, shown: bool) -> Features | None:
        """The original's features of the clean images, once for attack, update and log."""
        return self._quietly(self._original, images) if "original" in self.objective.needs or shown else None

    def _quietly(self, tower: nn.Module, images: Tensor) -> Features:
        with torch.no_grad():
            return self._features(tower, images)

    def _features(self, tower: nn.Module, images: Tensor) -> Features:
        if not self.runtime.bfloat16:
            return tower(images)
        with torch.autocast(images.device.type, dtype=torch.bfloat16):
            return tower(images)

    def _loss(self, tower: nn.Module, attacked: Tensor, clean: Tensor, target: Target) -> tuple[Tensor, Tensor]:
        """The loss to minimise, and the embeddings of the attacked images; clean images join only where needed."""
        weight, count = self.recipe.clean_weight, len(attacked)
        both = weight > 0 or "clean" in self.objective.needs
        seen = self._features(tower, torch.cat([attacked, clean]) if both else attacked)
        hostile = _rows(seen, slice(0, count))
        if both:
            target = target._replace(clean=_rows(seen, slice(count, None)))
        loss = self.objective.loss(hostile, target).mean()
        if weight > 0:
            loss = (1 - weight) * loss + weight * self.objective.loss(cast(Features, target.clean), target).mean()
        return loss, hostile.embedding.detach()

    def _synchronised(self, last: bool) -> AbstractContextManager[Any]:
        """Gradients travel between processes once a step, with the last micro-batch."""
        if last or self.runtime.world.size == 1:
            return nullcontext()
        return cast(Any, self._parallel).no_sync()

    def _agree_on_health(self, step: int, finite: Tensor) -> None:
        """Every process stops when the attack met a loss or gradient that is not finite in one of them."""
        names = [*self._last.ids] or [f"number {i} of the batch" for i in range(len(finite))]
        bad = [name for name, fine in zip(names, finite.tolist(), strict=True) if not fine]
        if self.runtime.world.mean([float(bool(bad))])[0] == 0:
            return
        found = [name for part in self.runtime.world.gather(bad) for name in cast(list[str], part)]
        raise TrainingError(
            f"the inner attack met a loss or gradient that is not finite at step {step}, on {len(found)} images: "
            f"{_listed(found)}. Look at those images; with --bf16, try without. Checkpoints hold only good steps"
        )

    def probe(self, size: int) -> None:
        """A step's worth of memory on ``size`` images of the last batch, with nothing kept.

        No other process takes part. Before the first update, AdamW's two moments are still to come.
        """
        trained = [p for p in self._plain.parameters() if p.requires_grad]
        moments = [torch.empty_like(p) for p in trained for _ in range(2)] if self._fresh else []
        batch = self._last
        images = batch.images[:size].to(self.runtime.world.device)
        labels = None if batch.labels is None else batch.labels[:size].to(images.device)
        target = Target(self._anchor(images, True), None, labels, self.classes)
        with frozen(self._plain):
            clean = self._quietly(self._tower, images)
            target = target._replace(clean=clean)
            leaf = images.clone().requires_grad_()
            loss = self.objective.loss(self._features(self._tower, leaf), target)
            torch.autograd.grad(loss.sum(), leaf)
        self._loss(self._tower, images, images, target)[0].backward()
        del moments


def check_labels(batch: Batch, objective: str, classes: Tensor | None) -> None:
    """That every image has the number of a class.

    Raises:
        TrainingError: naming the image that has not.
    """
    names = [*batch.ids] or [f"number {i} of the batch" for i in range(len(batch.images))]
    if batch.labels is None:
        raise TrainingError(f"{objective} needs a label of every image, and not all of these have one: "
                            f"{_listed(names)}")  # fmt: skip
    count = 0 if classes is None else classes.shape[1]
    wrong = [(name, label) for name, label in zip(names, batch.labels.tolist(), strict=True) if not 0 <= label < count]
    if wrong:
        raise TrainingError(f"{wrong[0][0]} has label {wrong[0][1]}, but there are {count} classes (0 to {count - 1}); "
                            "--classnames takes a name a line, in the order of the labels")  # fmt: skip


def _listed(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _rows(features: Features, rows: slice) -> Features:
    return Features(features.embedding[rows], None if features.patches is None else features.patches[rows])


def _cosines(attacked: Tensor, clean: Features | None, anchor: Features | None) -> dict[str, float]:
    if clean is None or anchor is None:
        return {}
    return {
        "cosine_clean": F.cosine_similarity(clean.embedding, anchor.embedding).mean().item(),
        "cosine_attacked": F.cosine_similarity(attacked, anchor.embedding).mean().item(),
    }


def _out_of_memory(size: int, share: int, stepper: Stepper) -> TrainingError:
    """Name the largest micro-batch that fits, found by trying."""
    fits = largest_that_fits(stepper.probe, size)
    if fits == 0:
        return TrainingError("out of memory even with one image at a time; use --checkpoint-activations or --bf16")
    return TrainingError(
        f"out of memory with {size} images at once; {fits} fit: add --micro-batch {fits}. The {share} images a "
        "device and step stay what they are, and so does the result up to rounding"
    )


def largest_that_fits(attempt: Callable[[int], None], failed: int) -> int:
    """The largest halving of ``failed`` for which ``attempt`` does not run out of memory; 0 if none."""
    size = failed // 2
    while size > 0:
        try:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            attempt(size)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            size //= 2
        else:
            return size
    return 0
