"""One batch of one attack step: start, search, certificate. Trusts no attack function: what it returns is measured."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from attacks.apgd import FirstCheckpoint
from attacks.kinds import KINDS, AttackFunction, Confirm, Search
from attacks.objective import Objective, side_by_side
from attacks.outcome import Outcome
from attacks.presets import EMBEDDING, AttackStep
from attacks.threat import ThreatModel
from bench import registry
from bench.errors import UsageError
from bench.running.images import ImageStore
from tasks.base import ImageTextEncoder, Sample, Victim
from tasks.embedding import EmbeddingDistance

SEED_RANGE = 2**31  # of the numbers that attacks with a random stream of their own are given


@dataclass(frozen=True)
class Job:
    """B samples under one step, or under the G steps of a volley: G B rows, all samples under the first step first.

    Attributes:
        steps: with the goal of each already settled.
        clean: (B, 3, H, W).
    """

    steps: tuple[AttackStep, ...]
    samples: Sequence[Sample]
    clean: Tensor
    eps: float
    threat: ThreatModel

    @property
    def repeated(self) -> Tensor:
        """Clean images (G B, 3, H, W) of the rows."""
        return self.clean if len(self.steps) == 1 else self.clean.repeat(len(self.steps), 1, 1, 1)

    @property
    def sample_rows(self) -> list[Sample]:
        """The sample of each row."""
        return list(self.samples) * len(self.steps)


@dataclass(frozen=True)
class Conditions:
    """What is the same for all jobs of a run."""

    seed: int
    first_checkpoint: str
    stop_when_fooled: bool
    store: ImageStore | None


def objective(job: Job, victim: Victim, encoder: ImageTextEncoder) -> Objective:
    """What an attack on this job ascends.

    Raises:
        UsageError: steps that cannot be taken side by side are declared a volley.
    """
    if job.steps[0].goal == EMBEDDING:
        return EmbeddingDistance(encoder, job.clean)
    try:
        return side_by_side([victim.objective(job.clean, job.samples, step.goal) for step in job.steps])
    except TypeError as error:
        raise UsageError(f"volley {job.steps[0].volley!r}: {error}") from error


def attack_function(kind: str) -> AttackFunction:
    """A kind by name: built in, or from a plugin.

    Raises:
        UsageError: an unknown kind.
    """
    if kind in KINDS:
        return KINDS[kind]
    if kind in registry.plugins("bench.attack_kinds"):
        return cast(AttackFunction, registry.resolve("bench.attack_kinds", kind))
    raise registry.unknown("kind of attack", kind, [*KINDS, *registry.plugins("bench.attack_kinds")])


def search(
    job: Job, goal: Objective, conditions: Conditions, confirm: Confirm | None = None
) -> tuple[Outcome, list[str | None]]:
    """Carry out a job; returns what the attack found, and what is wrong with it row by row.

    Raises:
        UsageError: the attack cannot run on this task.
    """
    step, clean = job.steps[0], job.repeated
    siblings = torch.arange(len(job.samples), device=clean.device).repeat(len(job.steps))
    how = Search(
        step=step,
        init=start_of(job, conditions).clone(),
        seeds=[_seed(conditions.seed, s.id, step.name, job.eps) % SEED_RANGE for s in job.sample_rows],
        stop_when_fooled=conditions.stop_when_fooled,
        first_checkpoint=cast(FirstCheckpoint, conditions.first_checkpoint),
        siblings=siblings if len(job.steps) > 1 else None,
        confirm=confirm,
    )
    try:  # on copies: an attack that changes its input must not move the ball
        outcome = attack_function(step.kind)(goal, clean.clone(), job.threat, how)
    except ValueError as error:
        raise UsageError(f"attack step {step.name!r}: {error}") from error
    return certify(outcome, clean, job.threat, step)


def certify(outcome: Outcome, clean: Tensor, threat: ThreatModel, step: AttackStep) -> tuple[Outcome, list[str | None]]:
    """Measure what an attack returned, in float32.

    Returns:
        The outcome, whose images are the clean ones wherever something is wrong, and what is wrong, row by row.
    """
    who = f"attack step {step.name!r} ({step.kind})"
    if wrong := _misshapen(outcome, clean):
        size, device = len(clean), clean.device
        nothing = torch.zeros(size, dtype=torch.bool, device=device)
        blank = Outcome(
            clean, clean.new_full((size,), torch.nan), nothing, ~nothing, nothing.to(torch.int64)
        )  # fmt: skip
        return blank, [f"{who} {wrong}"] * size
    finite = outcome.images.isfinite().flatten(1).all(dim=1)
    inside = threat.contains(outcome.images, clean)
    losses = outcome.loss.tolist()
    problems: list[str | None] = []
    for k in range(len(clean)):
        problem = None
        if bool(outcome.failed[k]):
            problem = "the loss or its gradient is not finite"
        elif not bool(finite[k]):
            problem = f"{who} returned pixels that are not finite"
        elif not math.isfinite(losses[k]):
            problem = f"{who} returned the loss {losses[k]}"
        elif not bool(inside[k]):
            others = threat.contains(outcome.images[k].expand_as(clean), clean)
            where = "lies in the ball of another sample: were rows reordered?" if others.any() else "left the ball"
            problem = f"{who} left the threat model: the image {where}"
        problems.append(problem)
    allowed = torch.tensor([p is None for p in problems], device=clean.device)
    shown = torch.where(allowed[:, None, None, None], outcome.images, clean)
    return outcome._replace(images=shown.detach()), problems


def _misshapen(outcome: object, clean: Tensor) -> str | None:
    """Why a result cannot even be measured."""
    if not isinstance(outcome, Outcome):
        return f"returned a {type(outcome).__name__}, not an attacks.outcome.Outcome"
    for name, part in outcome._asdict().items():
        if not isinstance(part, Tensor):
            return f"returned {name} as a {type(part).__name__}, not a tensor"
        if part.device != clean.device:
            return f"returned {name} on {part.device}, not on {clean.device}"
    if outcome.images.shape != clean.shape or outcome.images.dtype != torch.float32:
        found, wanted = tuple(outcome.images.shape), tuple(clean.shape)
        return f"returned images {found} {outcome.images.dtype}, not {wanted} torch.float32"
    for name in ("loss", "fooled", "failed", "evaluations"):
        if (shape := tuple(getattr(outcome, name).shape)) != clean.shape[:1]:
            return f"returned {name} of shape {shape}, not ({len(clean)},)"
    for name in ("fooled", "failed"):
        if (kind := getattr(outcome, name).dtype) != torch.bool:
            return f"returned {name} as {kind}, not torch.bool"
    return None


def start_of(job: Job, conditions: Conditions) -> Tensor:
    """The images (G B, 3, H, W) that a job begins with."""
    start = job.steps[0].start
    if start == "random":
        streams = [
            torch.Generator().manual_seed(_seed(conditions.seed, sample.id, step.name, job.eps))
            for step in job.steps
            for sample in job.samples
        ]
        return job.threat.random_start(job.repeated, streams)
    if start == "best":
        assert conditions.store is not None
        return conditions.store.worst(job.samples, job.clean, job.eps).repeat(len(job.steps), 1, 1, 1)
    return job.repeated


def _seed(seed: int, *parts: object) -> int:
    """The random stream of one (seed, sample, step, radius)."""
    key = hashlib.sha256(repr((seed, *parts)).encode()).digest()
    return int.from_bytes(key[:8], "big") >> 1
