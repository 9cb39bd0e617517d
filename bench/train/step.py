"""One training step, with no pass that the update does not need.

Per image: one forward pass of the original (if the objective compares with it), the attack's forward and backward
passes without weight gradients, one forward and backward pass of the update. The cosines that are shown cost one more
forward pass on the steps that are logged, and none on the others.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from bench.batch_size import is_out_of_memory
from bench.train.attack import attack
from bench.train.batch import Batch, check_labels, listed, names_of
from bench.train.checkpoint import TrainingError
from bench.train.distributed import World
from bench.train.hooks import Update
from bench.train.loop import step_generator
from bench.train.memory import out_of_memory
from bench.train.objectives import Features, Target, TrainingObjective, checked, given, part
from bench.train.recipe import Recipe
from bench.train.schedule import logged
from bench.train.towers import feature_tower, frozen, train_mode


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


class _Piece(NamedTuple):
    """A micro-batch: its number, images, labels, noise of the random start, and its share of the process's batch."""

    number: int
    images: Tensor
    labels: Tensor | None
    noise: Tensor
    share: float
    last: bool


class _Found(NamedTuple):
    """Mean loss of a micro-batch, which of its images kept finite losses and gradients, and figures to show."""

    loss: float
    finite: Tensor
    figures: dict[str, float]


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
        self.objective = checked(recipe.objective, objective)
        self.recipe, self.batches, self.classes = recipe, batches, classes
        original.eval().requires_grad_(False)
        self._original = self._compile(feature_tower(original, objective))
        self._plain = self._shared_statistics(feature_tower(tower, objective))
        self._tower = self._compile(self._plain)
        self._parallel = self.runtime.world.parallel(self._tower)
        self._last, self._fresh = Batch(torch.empty(0)), True
        self._waited, self._since = 0.0, time.monotonic()

    def _shared_statistics(self, tower: nn.Module) -> nn.Module:
        """Where batch normalisation trains, its statistics are those of the global batch."""
        if "batch-norm-on-attacked" not in self.recipe.flaws or self.runtime.world.size == 1:
            return tower
        if self.runtime.world.device.type != "cuda":
            raise TrainingError("batch-norm-on-attacked needs CUDA where several processes share a batch")
        return cast(nn.Module, nn.SyncBatchNorm.convert_sync_batchnorm(tower))  # type: ignore[no-untyped-call]

    def _compile(self, module: nn.Module) -> nn.Module:
        return cast(nn.Module, torch.compile(module)) if self.runtime.compiled else module

    def __call__(self, step: int) -> Update:
        """Leave the gradients of the step in the parameters.

        Raises:
            TrainingError: a loss or gradient of the attack is not finite; the memory does not suffice.
        """
        pieces = self._pieces(step, self._next(step))
        found = [self._accumulate_if_it_fits(step, piece, len(pieces[0].images)) for piece in pieces]
        self._fresh = False
        self._agree_on_health(step, torch.cat([one.finite for one in found]))
        shares = [piece.share for piece in pieces]
        total = sum(one.loss * share for one, share in zip(found, shares, strict=True))
        figures = {
            key: sum(one.figures[key] * share for one, share in zip(found, shares, strict=True))
            for key in found[0].figures
        }
        if logged(step, self.recipe.schedule):
            figures["data_wait"] = self._share_of_waiting()
        total, *means = self.runtime.world.mean([total, *figures.values()])
        return Update(total, dict(zip(figures, means, strict=True)))

    def _next(self, step: int) -> Batch:
        before = time.monotonic()
        self._last = self.batches(step)
        self._waited += time.monotonic() - before
        if "labels" in self.objective.needs:
            check_labels(self._last, self.recipe.objective, self.classes)
        return self._last

    def _pieces(self, step: int, batch: Batch) -> list[_Piece]:
        """The micro-batches of this process's batch, on its device."""
        images = batch.images.to(self.runtime.world.device, non_blocking=True)
        labels = None if batch.labels is None else batch.labels.to(images.device)
        noise, count = self._noise(step, images), len(images)
        starts = range(0, count, self.runtime.micro_batch or count)
        pieces = []
        for number, start in enumerate(starts):
            rows = slice(start, min(start + starts.step, count))
            some = None if labels is None else labels[rows]
            share = (rows.stop - rows.start) / count
            pieces.append(_Piece(number, images[rows], some, noise[rows], share, number == len(starts) - 1))
        return pieces

    def _noise(self, step: int, images: Tensor) -> Tensor:
        """Uniform noise of the whole global batch, so that it does not depend on the number of processes."""
        world = self.runtime.world
        shape = (len(images) * world.size, *images.shape[1:])
        generator = step_generator(self.recipe.seed, step, images.device)
        return torch.rand(shape, generator=generator, device=images.device)[world.share(shape[0])]

    def _accumulate_if_it_fits(self, step: int, piece: _Piece, size: int) -> _Found:
        try:
            return self._accumulate(step, piece)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise out_of_memory(size, len(self._last.images), self.probe) from error

    def _accumulate(self, step: int, piece: _Piece) -> _Found:
        """Attack a micro-batch, and add the gradients of its update to those of the step."""
        shown = logged(step, self.recipe.schedule)
        anchor = self._anchor(piece.images, shown)
        with frozen(self._plain):
            clean = self._quietly(self._tower, piece.images) if "clean" in self.objective.needs or shown else None
            target = Target(anchor, clean, piece.labels, self.classes)
            hostile = attack(
                lambda x: self._features(self._tower, x),
                self.objective.loss,
                piece.images,
                target,
                piece.noise,
                self.recipe,
                step,
            )
        train_mode(self._plain, batch_statistics="batch-norm-on-attacked" in self.recipe.flaws)
        self._seed(step, piece.number)
        with self._synchronised(piece.last):
            loss, attacked = self._loss(self._parallel, hostile.images, piece.images, target._replace(clean=None))
            torch.autograd.backward(loss * piece.share)
        return _Found(loss.item(), hostile.finite, _cosines(attacked, clean, anchor) if shown else {})

    def _seed(self, step: int, number: int) -> None:
        """Dropout and stochastic depth draw from the step, the process and the micro-batch."""
        rank = self.runtime.world.rank
        torch.manual_seed(((self.recipe.seed + 1) * 1_000_003 + step) * 4096 + rank * 64 + number)

    def _anchor(self, images: Tensor, shown: bool) -> Features | None:
        """The original's features of the clean images, once for attack, update and log."""
        return self._quietly(self._original, images) if "original" in self.objective.needs or shown else None

    def _quietly(self, tower: nn.Module, images: Tensor) -> Features:
        with torch.no_grad():
            return self._features(tower, images)

    def _features(self, tower: nn.Module, images: Tensor) -> Features:
        if not self.runtime.bfloat16:
            return cast(Features, tower(images))
        with torch.autocast(images.device.type, dtype=torch.bfloat16):
            return cast(Features, tower(images))

    def _loss(self, tower: nn.Module, attacked: Tensor, clean: Tensor, target: Target) -> tuple[Tensor, Tensor]:
        """The loss to minimise, and the embeddings of the attacked images."""
        hostile, calm = self._views(tower, attacked, clean)
        target = target._replace(clean=calm)
        loss = self.objective.loss(hostile, target).mean()
        weight = self.recipe.clean_weight
        if weight > 0:
            loss = (1 - weight) * loss + weight * self.objective.loss(given(calm), target).mean()
        return loss, hostile.embedding.detach()

    def _views(self, tower: nn.Module, attacked: Tensor, clean: Tensor) -> tuple[Features, Features | None]:
        """Features of the attacked images, and of the clean ones, which join only where they are needed."""
        both = self.recipe.clean_weight > 0 or "clean" in self.objective.needs
        if "batch-norm-twice" in self.recipe.flaws:
            calm = self._features(tower, clean) if both else self._quietly(self._tower, clean)
            return self._features(tower, attacked), calm if both else None
        seen = self._features(tower, torch.cat([attacked, clean]) if both else attacked)
        count = len(attacked)
        return given(part(seen, slice(0, count))), part(seen, slice(count, None)) if both else None

    def _synchronised(self, last: bool) -> AbstractContextManager[None]:
        """Gradients travel between processes once a step, with the last micro-batch."""
        if last or not isinstance(self._parallel, DistributedDataParallel):
            return nullcontext()
        return cast(AbstractContextManager[None], self._parallel.no_sync())

    def _agree_on_health(self, step: int, finite: Tensor) -> None:
        """Every process stops when the attack met a loss or gradient that is not finite in one of them."""
        names = names_of(self._last)
        bad = [name for name, fine in zip(names, finite.tolist(), strict=True) if not fine]
        if self.runtime.world.mean([float(bool(bad))])[0] == 0:
            return
        found = [name for some in self.runtime.world.gather(bad) for name in cast(list[str], some)]
        raise TrainingError(
            f"the inner attack met a loss or gradient that is not finite at step {step}, on {len(found)} images: "
            f"{listed(found)}. Look at those images; with --bf16, try without. Checkpoints hold only good steps"
        )

    def _share_of_waiting(self) -> float:
        """Share of the time since the last call in which this process waited for images."""
        now = time.monotonic()
        share = self._waited / max(now - self._since, 1e-9)
        self._waited, self._since = 0.0, now
        return share

    def describe(self, step: int) -> str:
        """The images of the last step, for error messages."""
        return listed(self._last.ids)

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
            target = target._replace(clean=self._quietly(self._tower, images))
            leaf = images.clone().requires_grad_()
            loss = self.objective.loss(self._features(self._tower, leaf), target)
            torch.autograd.grad(loss.sum(), leaf)
        torch.autograd.backward(self._loss(self._tower, images, images, target)[0])
        del moments


def _cosines(attacked: Tensor, clean: Features | None, anchor: Features | None) -> dict[str, float]:
    if clean is None or anchor is None:
        return {}
    return {
        "cosine_clean": F.cosine_similarity(clean.embedding, anchor.embedding).mean().item(),
        "cosine_attacked": F.cosine_similarity(attacked, anchor.embedding).mean().item(),
    }
