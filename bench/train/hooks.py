"""What a training run adds to the bare loop."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from bench.train.checkpoint import Stateful
from bench.train.distributed import World


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
