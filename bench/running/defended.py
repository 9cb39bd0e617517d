"""Attacks on a defended victim: which model a step follows, and averages over draws."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from attacks.adaptive import Way, way_of
from attacks.objective import Expectation, Objective
from attacks.presets import AttackStep
from bench.models.defences.chain import Defended, Gradient
from bench.models.defences.draws import NOTHING_DRAWN, Draws, stream
from tasks.base import Answer, ImageTextEncoder, Sample, Victim
from tasks.features import AWAY


@dataclass(frozen=True)
class Through:
    """A randomised victim as one attack step looks at it: each look at a sample has draws of its own.

    Attributes:
        victim: behind its defences.
        way: how the step looks at it.
        key: what, beside the sample, the attack's draws depend on: seed, step and radius.
    """

    victim: Defended
    way: Way
    key: tuple[object, ...]

    def predict(self, images: Tensor, samples: Sequence[Sample]) -> list[Answer]:
        """Nobody asks here: scores are taken over draws that no attack has seen (`bench.running.scoring`)."""
        raise TypeError("answers of a randomised victim are scored over draws")

    def objective(self, images: Tensor, samples: Sequence[Sample], goal: str) -> Objective:
        """The mean over the way's draws."""
        seeds = [stream(*self.key, sample.id, "attack") for sample in samples]

        def part(rows: Tensor, looks: Tensor, draw: int) -> Objective:
            chosen = rows.tolist()
            seen = zip(chosen, looks.tolist(), strict=True)
            draws = Draws(tuple(stream(seeds[row], look, draw) for row, look in seen))
            return objective_with(self.victim, self.way, draws, images[rows], [samples[row] for row in chosen], goal)

        return Expectation(part, len(samples), self.way.draws)


def objective_with(
    victim: Defended, way: Way, draws: Draws, images: Tensor, samples: Sequence[Sample], goal: str
) -> Objective:
    """The objective of a defended victim with given draws, one for each of the B clean images."""
    if goal in AWAY:
        return AWAY[goal](victim.view(draws, gradient_of(way)), images)
    return victim.drawn(draws, gradient_of(way)).objective(images, samples, goal)


def fixed(victim: Defended, step: AttackStep, images: Tensor, samples: Sequence[Sample], seed: int) -> Objective:
    """A step's objective with one draw for each sample that stays the same at every look, for the sanity checks."""
    seeds = [stream(seed, sample.id, "check") for sample in samples]

    def part(rows: Tensor, looks: Tensor, draw: int) -> Objective:
        chosen = rows.tolist()
        draws, some = Draws(tuple(seeds[row] for row in chosen)), [samples[row] for row in chosen]
        return objective_with(victim, way_of(step), draws, images[rows], some, step.goal)

    return Expectation(part, len(samples), 1)


def gradient_of(way: Way) -> Gradient:
    """Whose gradient a way of looking has."""
    return "surrogate" if way.surrogate else "own"


def source_of(victim: Defended, step: AttackStep, seed: int, eps: float) -> tuple[Victim, ImageTextEncoder]:
    """What a step's gradients come through, and its encoder."""
    way = way_of(step)
    if not way.defended:
        return victim.undefended, victim.encoder
    if victim.randomised:
        return Through(victim, way, (seed, step.name, eps)), victim.encoder
    gradient = gradient_of(way)
    return victim.drawn(NOTHING_DRAWN, gradient), victim.view(NOTHING_DRAWN, gradient)
