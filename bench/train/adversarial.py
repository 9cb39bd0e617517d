"""Adversarial fine-tuning of a CLIP image tower (Schlarmann et al. 2024, arXiv 2402.12336, section 3).

An update trains on images perturbed to maximise the very loss that it minimises. With FARE, which needs no labels, the
perturbed image's embedding must stay where the original tower's embedding of the clean image is.
"""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from torch import Tensor, nn

from bench.train.batch import Batch
from bench.train.hooks import Hooks
from bench.train.loop import train
from bench.train.objectives import TrainingObjective, load_objective
from bench.train.recipe import Recipe
from bench.train.step import Runtime, Stepper
from bench.train.towers import trained_part


def finetune(
    name: str,
    tower: nn.Module,
    original: nn.Module,
    recipe: Recipe,
    batches: Callable[[int], Batch],
    directory: Path,
    *,
    objective: TrainingObjective | None = None,
    classes: Tensor | None = None,
    settings: dict[str, object] | None = None,
    runtime: Runtime | None = None,
    hooks: Hooks | None = None,
    checkpoint_every: int = 100,
) -> None:
    """Fine-tune ``tower`` in place; resumable (see `bench.train.loop.train`).

    Args:
        name: for the progress bar.
        tower: the image tower to train: images in [0, 1] -> (b, D) embeddings; of an Encoder, its image tower.
        original: the frozen tower that the objective may hold on to.
        recipe: objective, radius, schedule.
        batches: step -> this process's images and, where the objective needs them, labels.
        directory: for checkpoints and metrics.
        objective: in place of the one that the recipe names.
        classes: (D, K) text embeddings times the logit scale, for objectives with labels.
        settings: what else defines the run (data, world).
        runtime: devices, precision, micro-batches; changes nothing but rounding.
        hooks: data position, evaluation, observers.
        checkpoint_every: steps between checkpoints.

    Raises:
        TrainingError: see `bench.train.loop.train`, and memory that does not suffice.
    """
    objective = objective or load_objective(recipe.objective)
    part = trained_part(tower)
    part.requires_grad_(True)
    stepper = Stepper(tower, original, objective, recipe, batches, classes=classes, runtime=runtime)
    world = stepper.runtime.world
    hooks = replace(hooks or Hooks(), rate=learning_rate(recipe), describe=stepper.describe, world=world)
    identity = {"recipe": asdict(recipe), **(settings or {})}
    train(
        name,
        {"tower": part},
        stepper,
        recipe.schedule,
        directory,
        settings=identity,
        checkpoint_every=checkpoint_every,
        hooks=hooks,
    )
    tower.eval()
    part.requires_grad_(False)


def learning_rate(recipe: Recipe) -> Callable[[int], float]:
    """Rate of each update; with the flaw by that name the first runs at the full rate, as in the published code."""

    def first_at_full_rate(step: int) -> float:
        return recipe.schedule.learning_rate if step == 0 else recipe.schedule.rate(step)

    return first_at_full_rate if "first-update-at-full-rate" in recipe.flaws else recipe.schedule.rate
