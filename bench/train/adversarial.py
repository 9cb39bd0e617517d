"""FARE and TeCoA: adversarial fine-tuning of a CLIP image tower (Schlarmann et al. 2024, section 3; Mao et al. 2023).

Both train on images perturbed to maximise the very loss that the update minimises. FARE needs no labels: the
perturbed image's embedding must stay where the original tower's embedding of the clean image is. TeCoA needs
labels: the perturbed image must be classified by the original text embeddings.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from attacks.objective import Progress, cross_entropy, squared_l2
from attacks.pgd import pgd
from attacks.threat import ThreatModel
from bench.train.loop import Schedule, fit, step_generator

Loss = Callable[[Tensor, Tensor], Tensor]  # embeddings (b, D), targets (b, ...) -> (b,)
Batch = tuple[Tensor, Tensor | None]  # images (b, 3, H, W) in [0, 1], labels (b,) or None


@dataclass(frozen=True)
class Recipe:
    """A fine-tuning run. Radii in 1/255; the inner attack is PGD from a random start (paper, section 3)."""

    objective: Literal["fare", "tecoa"]
    eps_255: float
    schedule: Schedule
    inner_steps: int = 10
    inner_step_255: float = 1.0
    ramp: float = 0.0  # share of the run over which eps grows linearly from 0
    seed: int = 0

    def radius(self, step: int) -> float:
        """Eps of one update, in pixel units."""
        grown = min(1.0, (step + 1) / (self.ramp * self.schedule.steps)) if self.ramp else 1.0
        return self.eps_255 * grown / 255


def tecoa_loss(text: Tensor, scale: Tensor) -> Loss:
    """Cross-entropy of scaled cosine similarities to the class weights ``text`` (D, K)."""

    def loss(embeddings: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(scale * nn.functional.normalize(embeddings, dim=-1) @ text, labels)

    return loss


def finetune(
    name: str,
    tower: nn.Module,
    original: nn.Module,
    recipe: Recipe,
    batches: Callable[[int], Batch],
    directory: Path,
    *,
    loss: Loss = squared_l2,
    settings: dict[str, object] | None = None,
) -> None:
    """Fine-tune ``tower`` in place; resumable (see `bench.train.loop.fit`).

    Args:
        name: for the progress bar.
        tower: the image tower to train: images in [0, 1] -> (b, D) embeddings.
        original: the frozen tower that FARE holds on to; TeCoA does not use it.
        recipe: objective, radius, schedule.
        batches: step -> images and, for TeCoA, labels.
        directory: for checkpoints and metrics.
        loss: `squared_l2` for FARE, `tecoa_loss` for TeCoA.
        settings: what else defines the run (data, world).
    """
    original.eval().requires_grad_(False)
    tower.requires_grad_(True)

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        images, labels = batches(step)
        with torch.no_grad():
            anchor = original(images)
        targets = anchor if labels is None else labels
        perturbed = _perturb(tower, images, targets, loss, recipe, step)
        embeddings = tower.train()(perturbed)
        agreement = nn.functional.cosine_similarity(embeddings.detach(), anchor).mean().item()
        return loss(embeddings, targets).mean(), {"cosine_attacked": agreement}

    identity = {"recipe": asdict(recipe), **(settings or {})}
    fit(name, {"tower": tower}, loss_of_step, recipe.schedule, directory, settings=identity)
    tower.eval()


def _perturb(tower: nn.Module, images: Tensor, targets: Tensor, loss: Loss, recipe: Recipe, step: int) -> Tensor:
    tower.eval()

    def objective(images: Tensor, rows: Tensor) -> Progress:
        values = loss(tower(images), targets[rows])
        return Progress(values, torch.zeros_like(values, dtype=torch.bool))

    threat = ThreatModel("linf", recipe.radius(step))
    noise = torch.rand(images.shape, generator=step_generator(recipe.seed, step))
    start = images + threat.eps * (2 * noise.to(images.device) - 1)
    step_size = recipe.inner_step_255 / 255 * threat.eps * 255 / recipe.eps_255
    outcome = pgd(
        objective, images, threat, steps=recipe.inner_steps, step_size=step_size, momentum=0.0, init=start,
        stop_when_fooled=False,
    )  # fmt: skip
    if outcome.failed.any():
        raise FloatingPointError(f"the inner attack met a non-finite loss at step {step}")
    return outcome.images
