"""Training objectives: what an update minimises on attacked images, and the inner attack maximises.

Each is one small function from what the trained tower says of b attacked images, and what it is held to, to (b,)
losses, under the decorator `objective`, which says what the function reads. Objectives of other packages are entry
points in the group ``bench.objectives``.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeVar, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.objective import cross_entropy, squared_l2
from bench import registry
from bench.batch_size import is_out_of_memory
from bench.errors import UsageError

T = TypeVar("T")
Need = Literal["original", "clean", "labels", "patches"]
"""What a loss reads: features of the clean image by the original or by the trained tower, labels, patch tokens."""


class Features(NamedTuple):
    """What a tower says of b images: embedding (b, D) float32, projected and not normalised; patches (b, N, W)."""

    embedding: Tensor
    patches: Tensor | None = None


class Target(NamedTuple):
    """What b images are held to; fields that the objective does not need are None.

    Attributes:
        original: the frozen original tower's features of the clean images.
        clean: the trained tower's features of the clean images: with gradients in the update, without in the attack.
        labels: (b,) int64.
        classes: (D, K) text embeddings of unit length times the logit scale.
    """

    original: Features | None = None
    clean: Features | None = None
    labels: Tensor | None = None
    classes: Tensor | None = None


Loss = Callable[[Features, Target], Tensor]


@dataclass(frozen=True)
class TrainingObjective:
    """A loss (b,) and what it needs; see `objective`.

    Args:
        loss: features of attacked images and their target -> (b,) float32.
        needs: what the loss reads besides the embedding of the attacked images; nothing else is computed.
        about: one line for the model card.
    """

    loss: Loss
    needs: frozenset[Need]
    about: str


def objective(*needs: Need, about: str) -> Callable[[Loss], TrainingObjective]:
    """Make a training objective of a loss function.

    Args:
        needs: what the loss reads besides the embedding of the attacked images; nothing else is computed.
        about: one line for the model card.

    Raises:
        UsageError: an unknown need.
    """
    if unknown := sorted({*needs} - {*get_args(Need)}):
        raise registry.unknown("need of an objective", unknown[0], get_args(Need))
    return lambda loss: TrainingObjective(loss, frozenset(needs), about)


@objective("original", about="summed squared difference to the original's clean embedding")
def fare(features: Features, target: Target) -> Tensor:
    """Summed squared difference to the original's clean embedding (Schlarmann et al. 2024, arXiv 2402.12336, eq. 3)."""
    return squared_l2(features.embedding, given(target.original).embedding)


@objective("labels", about="cross-entropy to the text embeddings of the classes")
def tecoa(features: Features, target: Target) -> Tensor:
    """Cross-entropy of scaled cosine similarities to the class texts (Mao et al. 2023, arXiv 2212.07016)."""
    return cross_entropy(F.normalize(features.embedding, dim=-1) @ given(target.classes), given(target.labels))


@objective("clean", about="symmetric cosine between attacked and clean views (Sim-CLIP)")
def cosine(features: Features, target: Target) -> Tensor:
    """Symmetric negative cosine between attacked and clean views of the trained tower (arXiv 2407.14971).

    Half of -cos(attacked, clean held fixed) and half of -cos(attacked held fixed, clean); holding one side fixed
    keeps the embeddings from collapsing to a point.
    """
    attacked, clean = features.embedding, given(target.clean).embedding
    to_clean = F.cosine_similarity(attacked, clean.detach(), dim=-1)
    to_attacked = F.cosine_similarity(clean, attacked.detach(), dim=-1)
    # In the attack the clean view carries no gradient, and only the first term moves the image.
    return -(to_clean + to_attacked) / 2


@objective("original", "patches", about="FARE and a term on the patch tokens that LLaVA reads")
def fare_patches(features: Features, target: Target) -> Tensor:
    """FARE, and the same for the patch tokens that LLaVA reads (output of the last block but one).

    The patch term is the mean over tokens of the squared difference, over the mean squared length of the original's
    tokens, times the squared length of the original's embedding: a drift of a given share weighs the same in the
    tokens as in the embedding, whatever the scale of a layer.
    """
    original = given(target.original)
    now, then = given(features.patches).float(), given(original.patches).float()
    drift = (now - then).square().sum(-1).mean(-1) / then.square().sum(-1).mean(-1)
    return fare.loss(features, target) + drift * original.embedding.square().sum(-1)


def load_objective(name: str) -> TrainingObjective:
    """An objective by its name.

    Raises:
        UsageError: unknown name, or a plugin that is no `TrainingObjective`.
    """
    found = registry.resolve("bench.objectives", name)
    if not isinstance(found, TrainingObjective):
        raise UsageError(
            f"the objective {name!r} is a {type(found).__name__}, not a TrainingObjective; put @objective(...) of "
            "bench.train.objectives above its loss function"
        )
    return found


def checked(name: str, objective: TrainingObjective) -> TrainingObjective:
    """The same objective, which says what is wrong with its losses, for it may be another package's.

    Raises, when it is asked for losses:
        UsageError: it raises, or gives something else than a loss for each image.
    """

    def loss(features: Features, target: Target) -> Tensor:
        try:
            found = objective.loss(features, target)
        except Exception as error:  # whatever another package raises
            if isinstance(error, UsageError) or is_out_of_memory(error):
                raise
            raise UsageError(f"the training objective {name!r} fails: {type(error).__name__}: {error}") from error
        count = len(features.embedding)
        if not isinstance(found, Tensor) or found.shape != (count,):
            what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise UsageError(f"the training objective {name!r} gives {what}, not ({count},): a loss for each image")
        return found

    return replace(objective, loss=loss)


def take(target: Target, rows: Tensor | slice) -> Target:
    """The target of some of the images."""
    labels = None if target.labels is None else target.labels[rows]
    return Target(part(target.original, rows), part(target.clean, rows), labels, target.classes)


def part(features: Features | None, rows: Tensor | slice) -> Features | None:
    """The features of some of the images."""
    if features is None:
        return None
    return Features(features.embedding[rows], None if features.patches is None else features.patches[rows])


def given(value: T | None) -> T:
    """A field of a `Target` or of `Features`, which an objective must name in ``needs`` to read.

    Raises:
        UsageError: it does not.
    """
    if value is None:
        raise UsageError("the objective reads something that it does not name in its needs: @objective(...) takes them")
    return value


def classes_of(text: Tensor, scale: float | Tensor) -> Tensor:
    """Class weights of a `Target`: text embeddings (D, K) of unit length times the logit scale."""
    return (text * torch.as_tensor(scale)).detach()
