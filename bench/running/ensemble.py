"""Several models that images are made on at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from attacks.objective import Ensemble, Objective
from tasks.base import Answer, ImageTextEncoder, Sample, Victim


@dataclass(frozen=True)
class VictimEnsemble:
    """Victims whose losses are added with weights; nobody asks them for answers."""

    members: tuple[Victim, ...]
    weights: tuple[float, ...]

    def predict(self, images: Tensor, samples: Sequence[Sample]) -> list[Answer]:
        """The first member's answers."""
        return self.members[0].predict(images, samples)

    def objective(self, images: Tensor, samples: Sequence[Sample], goal: str) -> Objective:
        """The members' objectives."""
        return Ensemble(tuple(one.objective(images, samples, goal) for one in self.members), self.weights)


@dataclass(frozen=True)
class EncoderEnsemble:
    """The encoders of an ensemble, for goals that need no task."""

    members: tuple[ImageTextEncoder, ...]
    weights: tuple[float, ...]

    def objective(self, of_one: Callable[[ImageTextEncoder], Objective]) -> Objective:
        """What is made of each member, added with the weights."""
        return Ensemble(tuple(map(of_one, self.members)), self.weights)


def victim_of(victims: Sequence[Victim], weights: tuple[float, ...]) -> Victim:
    """One victim as it is, several as an ensemble."""
    return victims[0] if len(victims) == 1 else VictimEnsemble(tuple(victims), weights)


def encoder_of(encoders: Sequence[ImageTextEncoder], weights: tuple[float, ...]) -> ImageTextEncoder | EncoderEnsemble:
    """One encoder as it is, several as an ensemble."""
    return encoders[0] if len(encoders) == 1 else EncoderEnsemble(tuple(encoders), weights)
