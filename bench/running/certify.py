"""One batch of one attack step: start, attack, certificate. Trusts no attack: what it returns is measured."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from attacks.apgd import FirstCheckpoint
from attacks.kinds import Confirm, StepContext
from attacks.objective import Objective, side_by_side
from attacks.outcome import Outcome
from attacks.presets import TARGET_IMAGE, TARGET_SAID, TARGET_TEXT, TASKLESS, AttackStep
from attacks.threat import ThreatModel
from bench.errors import UsageError
from bench.running.defended import Through
from bench.running.ensemble import EncoderEnsemble
from bench.running.images import ImageStore
from bench.running.kinds import attack_kind
from bench.running.volley import Volley
from tasks.base import ImageTextEncoder, Victim
from tasks.features import AWAY, TowardsImage, TowardsSaid, TowardsText, target_texts

SEED_RANGE = 2**31  # of the numbers that attacks with a random stream of their own are given


@dataclass(frozen=True)
class AttackBatch:
    """What is attacked at once: B samples under one step, or under the G steps of a volley.

    Attributes:
        volley: steps and samples.
        clean: (B, 3, H, W).
        eps: radius as recorded.
        threat: the same as a ball.
        targets: (B, 3, h, w) target images, where there are any.
    """

    volley: Volley
    clean: Tensor
    eps: float
    threat: ThreatModel
    targets: Tensor | None = None

    @property
    def step(self) -> AttackStep:
        """The first step, which the others equal but for name and goal."""
        return self.volley.steps[0]

    @property
    def clean_rows(self) -> Tensor:
        """The clean image (G B, 3, H, W) of each row."""
        return self.volley.repeat(self.clean)

    def only(self, chosen: Sequence[int]) -> "AttackBatch":
        """Some of the B samples."""
        samples = [self.volley.samples[k] for k in chosen]
        targets = None if self.targets is None else self.targets[list(chosen)]
        return replace(self, volley=Volley(self.volley.steps, samples), clean=self.clean[list(chosen)], targets=targets)


@dataclass(frozen=True)
class Conditions:
    """What is the same for all batches of a run."""

    seed: int
    first_checkpoint: str
    stop_when_fooled: bool
    store: ImageStore | None


def objective(
    batch: AttackBatch, victim: Victim, encoder: ImageTextEncoder | EncoderEnsemble, asked: Victim | None = None
) -> Objective:
    """What an attack on this batch ascends.

    Args:
        batch: to attack.
        victim: that gradients come through.
        encoder: of that victim.
        asked: whose answers a goal is about that needs no gradient; the same by default.

    Raises:
        UsageError: steps that cannot be taken side by side are declared a volley; options that do not fit the task.
    """
    step = batch.step
    try:
        return attack_kind(step.kind).adapt(_goal(batch, victim, encoder, asked or victim), step.options)
    except ValueError as error:
        raise UsageError(f"attack step {step.name!r}: {error}") from error


def _goal(batch: AttackBatch, victim: Victim, encoder: ImageTextEncoder | EncoderEnsemble, asked: Victim) -> Objective:
    """What the steps' goals stand for on this task."""
    if batch.step.goal in TASKLESS and not isinstance(victim, Through):
        return _of_features(batch, encoder, asked)
    volley = batch.volley
    goals = [victim.objective(batch.clean, volley.samples, step.goal) for step in volley.steps]
    try:
        return side_by_side(goals)
    except TypeError as error:
        raise UsageError(f"volley {volley.name!r}: {error}") from error


def _of_features(batch: AttackBatch, encoder: ImageTextEncoder | EncoderEnsemble, asked: Victim) -> Objective:
    """A goal that no task decides on, for an encoder or for each of an ensemble; answers are compared by the first."""
    if batch.step.goal == TARGET_SAID:
        judge = encoder.members[0] if isinstance(encoder, EncoderEnsemble) else encoder
        return TowardsSaid(judge, asked, batch.volley.sample_rows)
    if isinstance(encoder, EncoderEnsemble):
        return encoder.objective(lambda one: _of_encoder(batch, one))
    return _of_encoder(batch, encoder)


def _of_encoder(batch: AttackBatch, encoder: ImageTextEncoder) -> Objective:
    goal = batch.step.goal
    if goal == TARGET_IMAGE:
        assert batch.targets is not None, "load refuses a dataset without targets"
        return TowardsImage(encoder, batch.targets)
    if goal == TARGET_TEXT:
        return TowardsText(encoder, target_texts(batch.volley.sample_rows))
    return AWAY[goal](encoder, batch.clean)


def carry_out(
    batch: AttackBatch, goal: Objective, conditions: Conditions, confirm: Confirm | None = None
) -> tuple[Outcome, list[str | None]]:
    """Attack a batch; returns what was found, and what is wrong with it row by row.

    Raises:
        UsageError: the attack cannot run on this task.
    """
    step, volley, clean = batch.step, batch.volley, batch.clean_rows
    context = StepContext(
        step=step,
        init=start_of(batch, conditions).clone(),
        seeds=[_seed(conditions.seed, sample.id, step.name, batch.eps) % SEED_RANGE for sample in volley.sample_rows],
        stop_when_fooled=conditions.stop_when_fooled,
        first_checkpoint=cast(FirstCheckpoint, conditions.first_checkpoint),
        siblings=volley.siblings(clean.device),
        confirm=confirm,
    )
    try:  # on copies: an attack that changes its input must not move the ball
        outcome = attack_kind(step.kind).run(goal, clean.clone(), batch.threat, context)
    except ValueError as error:
        raise UsageError(f"attack step {step.name!r}: {error}") from error
    return certify(outcome, clean, batch.threat, step)


def certify(outcome: Outcome, clean: Tensor, threat: ThreatModel, step: AttackStep) -> tuple[Outcome, list[str | None]]:
    """Measure what an attack returned, in float32.

    Returns:
        The outcome, whose images are the clean ones wherever something is wrong, and what is wrong, row by row.
    """
    who = f"attack step {step.name!r} ({step.kind})"
    if wrong := _misshapen(outcome, clean):
        size, device = len(clean), clean.device
        nothing = torch.zeros(size, dtype=torch.bool, device=device)
        unknown = clean.new_full((size,), torch.nan)
        blank = Outcome(clean, unknown, nothing, ~nothing, nothing.to(torch.int64))
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


def start_of(batch: AttackBatch, conditions: Conditions) -> Tensor:
    """The images (G B, 3, H, W) that an attack on a batch begins with."""
    if batch.step.start == "random":
        seeds = [_seed(conditions.seed, sample.id, step.name, batch.eps) for step, sample in batch.volley.rows]
        return batch.threat.random_start(batch.clean_rows, [torch.Generator().manual_seed(seed) for seed in seeds])
    if batch.step.start == "best":
        assert conditions.store is not None
        return batch.volley.repeat(conditions.store.worst(batch.volley.samples, batch.clean, batch.eps))
    return batch.clean_rows


def _seed(seed: int, *parts: object) -> int:
    """The random stream of one (seed, sample, step, radius)."""
    key = hashlib.sha256(repr((seed, *parts)).encode()).digest()
    return int.from_bytes(key[:8], "big") >> 1
