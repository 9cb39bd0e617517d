"""Attacking one batch, as often as it takes: in half precision, in float32, and on past a success that was none."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import msgspec
import torch
from torch import Tensor

from attacks.adaptive import way_of
from attacks.checks import SanityCheck
from attacks.kinds import Confirm
from attacks.objective import Objective
from attacks.outcome import Outcome
from attacks.presets import AttackStep
from bench.config import RunConfig
from bench.models.defences.chain import Defended
from bench.records import CLEAN, Record
from bench.records.worst import is_worse
from bench.running.certify import AttackBatch, Conditions, carry_out, objective, start_of
from bench.running.defended import fixed, source_of
from bench.running.ensemble import EncoderEnsemble
from bench.running.images import as_png
from bench.running.kinds import attack_kind
from bench.running.load import Setup
from bench.running.loss_curve import LossCurve, Watch
from bench.running.plugins import ask, score_of
from bench.running.sanity_checks import batch_checks, defence_checks
from bench.running.scoring import Occasion, Said, is_randomised, record_of, said_of
from bench.running.units import UNITS
from tasks.base import ImageTextEncoder, Sample, Victim
from tasks.protocol import PROTOCOLS

CHECKED = 32  # samples of the first batch attacked that the sanity checks look at; each costs a few passes


@dataclass(frozen=True)
class AttackedImage:
    """What an attack made of one sample under one step.

    Attributes:
        record: to be written.
        image: (3, H, W), inside the ball.
        claimed: whether the objective took the image for a success, at which the attack stopped.
    """

    record: Record
    image: Tensor
    claimed: bool


Attacked = list[list[AttackedImage]]  # by sample, then by step


@dataclass(frozen=True)
class Made:
    """What a batch's attack gave, row by row.

    Attributes:
        losses: of the objective; None where there is none.
        problems: what is wrong with a row.
        curves: loss curves.
    """

    outcome: Outcome
    losses: Sequence[float | None]
    problems: Sequence[str | None]
    curves: Sequence[LossCurve | None]


@dataclass(frozen=True)
class Models:
    """Who takes part: gradients come through the source, or its encoder; the victim's answers count."""

    source: Victim
    encoder: ImageTextEncoder | EncoderEnsemble
    victim: Victim


class Attacker:
    """Attacks the batches of one run.

    Attributes:
        checks: sanity checks of the first batch attacked; None before it.
    """

    def __init__(self, config: RunConfig, setup: Setup, conditions: Conditions) -> None:
        self.config, self.setup, self.conditions = config, setup, conditions
        self.protocol = PROTOCOLS[config.protocol]
        self.checks: tuple[SanityCheck, ...] | None = None

    def victim(self, precision: str) -> Victim:
        """Whose answers count for a step of this precision: only a protocol that says so trusts half precision."""
        half = self.setup.half if precision == "search" and self.config.surrogate is None else None
        return half.victim if half is not None and self.protocol.half_verdicts else self.setup.victim

    def attack(self, batch: AttackBatch) -> Attacked:
        """Attack in the precision of the batch's steps, and again where that may have been too weak.

        What an attack in half precision finds is asked of the victim in float32, and what it does not break is
        attacked again in float32, so that the result is no weaker; the protocol may forgo both. Where an attack
        stopped at what its objective took for a success, and the victim does not agree, it is carried on to its last
        step.
        """
        full = Models(*self._source(batch), self.setup.victim)
        half = self.setup.half if batch.step.precision == "search" else None
        used = full if half is None else Models(half.victim, half.encoder, self.victim("search"))
        stops = self.conditions.stop_when_fooled and self._may_stop(batch.step)
        conditions = replace(self.conditions, stop_when_fooled=stops)
        found = self._once(batch, used, conditions)
        if not stops:
            return found
        if half is not None and not self.protocol.half_verdicts:
            used = full
            found = self._again(batch, found, lambda images: True, used, conditions)
        onwards = replace(conditions, stop_when_fooled=False)
        return self._again(batch, found, lambda images: any(one.claimed for one in images), used, onwards)

    def _source(self, batch: AttackBatch) -> tuple[Victim, ImageTextEncoder | EncoderEnsemble]:
        """Whose gradients a batch's step follows."""
        victim = self.setup.victim
        if isinstance(victim, Defended):
            return source_of(victim, batch.step, self.conditions.seed, batch.eps)
        return self.setup.surrogate, self.setup.encoder

    def _may_stop(self, step: AttackStep) -> bool:
        """Whether an image that fools what a step follows fools the victim: neither another model nor other draws."""
        victim = self.setup.victim
        return not isinstance(victim, Defended) or (way_of(step).defended and not victim.randomised)

    def _breaks(self, record: Record, sample: Sample) -> bool:
        return record.choice is not None and self.setup.task.broken(record.choice, sample)

    def _again(
        self,
        batch: AttackBatch,
        found: Attacked,
        wanted: Callable[[list[AttackedImage]], bool],
        models: Models,
        conditions: Conditions,
    ) -> Attacked:
        """Attack again those wanted among the samples that are still robust; keep what is worse for the victim."""
        chosen = [
            k
            for k, (sample, images) in enumerate(zip(batch.volley.samples, found, strict=True))
            if not any(self._breaks(one.record, sample) for one in images) and wanted(images)
        ]
        if not chosen:
            return found
        second = dict(zip(chosen, self._once(batch.only(chosen), models, conditions), strict=True))
        return [
            [self._worse(one, other) for one, other in zip(images, second[k], strict=True)] if k in second else images
            for k, images in enumerate(found)
        ]

    def _worse(self, one: AttackedImage, other: AttackedImage) -> AttackedImage:
        """Of two results of one attack, the second unless it is better for the victim, at the cost of both."""
        first, second = one.record.choice, other.record.choice
        better = first is not None and (second is None or is_worse(self.setup.task.worst, first, second))
        kept = one if better else other
        return AttackedImage(at_the_cost_of(kept.record, [one.record, other.record]), kept.image, other.claimed)

    def _once(self, batch: AttackBatch, models: Models, conditions: Conditions) -> Attacked:
        """Attack through one model, ask another."""
        began = time.monotonic()
        made = self._make(batch, models, conditions)
        outcome, problems = made.outcome, made.problems
        answers = self._answers(batch, outcome.images, problems, models.victim)
        seconds = (time.monotonic() - began) / len(answers)
        fooled, spent = (part.tolist() for part in (outcome.fooled, outcome.evaluations))
        distances = (batch.threat.distance(outcome.images, batch.clean_rows) * UNITS[batch.threat.norm]).tolist()
        rows = []
        for k, (step, sample) in enumerate(batch.volley.rows):
            said, png_score = answers[k]
            record = msgspec.structs.replace(
                record_of(sample, self._occasion(step, batch), said, seconds=seconds),
                loss=made.losses[k],
                distance=distances[k],
                evaluations=spent[k],
                png_score=png_score,
                loss_curve=None if said.answer.error else made.curves[k],
            )
            rows.append(AttackedImage(record, outcome.images[k], fooled[k] and problems[k] is None))
        return batch.volley.by_sample(rows)

    def _make(self, batch: AttackBatch, models: Models, conditions: Conditions) -> Made:
        """The batch's adversarial images."""
        goal = objective(batch, models.source, models.encoder, models.victim)
        outcome, problems, curves = self._carry_out(batch, goal, models.victim, conditions)
        self._check(goal, batch, outcome)
        return Made(outcome, outcome.loss.tolist(), problems, curves)

    def _occasion(self, step: AttackStep, batch: AttackBatch) -> Occasion:
        return Occasion(self.conditions.seed, step.name, batch.eps)

    def clean_answers(self, samples: Sequence[Sample], images: Tensor) -> list[tuple[Said, float | None]]:
        """What the victim says of clean images, and their scores as 8-bit PNGs where those take another path."""
        occasions = [Occasion(self.conditions.seed, CLEAN, 0.0)] * len(samples)
        exact = said_of(self.setup.task, self.victim("search"), images, samples, occasions)
        if self.setup.deployed is None:
            return [(said, None) for said in exact]
        return self._with_pngs(samples, images, exact, occasions, self.setup.deployed)

    def _answers(
        self, batch: AttackBatch, images: Tensor, problems: Sequence[str | None], victim: Victim
    ) -> list[tuple[Said, float | None]]:
        """What the victim says, or what is wrong, and the scores of 8-bit PNGs if saved, or if they take another path.

        Where they do, the model that is deployed is asked about them.
        """
        samples = batch.volley.sample_rows
        occasions = [self._occasion(step, batch) for step, _ in batch.volley.rows]
        heard = zip(said_of(self.setup.task, victim, images, samples, occasions), problems, strict=True)
        exact = [said.with_error(problem) if problem else said for said, problem in heard]
        if not self.config.save_adversarial and self.setup.deployed is None:
            return [(said, None) for said in exact]
        return self._with_pngs(samples, images, exact, occasions, self.setup.deployed or victim)

    def _with_pngs(
        self,
        samples: Sequence[Sample],
        images: Tensor,
        exact: Sequence[Said],
        occasions: Sequence[Occasion],
        victim: Victim,
    ) -> list[tuple[Said, float | None]]:
        """What was said of images, and the scores of what a victim says of their 8-bit PNGs."""
        found: list[tuple[Said, float | None]] = []
        rounded = as_png(images)
        same = self.setup.deployed is None and torch.equal(rounded, images)
        pngs = exact if same else said_of(self.setup.task, victim, rounded, samples, occasions)
        for said, png in zip(exact, pngs, strict=True):
            error = said.answer.error or (png.answer.error and f"as an 8-bit PNG, {png.answer.error}")
            found.append((said.with_error(error), None) if error else (said, png.score))
        return found

    def _carry_out(
        self, batch: AttackBatch, goal: Objective, victim: Victim, conditions: Conditions
    ) -> tuple[Outcome, list[str | None], list[LossCurve | None]]:
        """What was found, what is wrong with it, and the loss curve, row by row."""
        samples = batch.volley.sample_rows
        asks = self.protocol.asks_at_checkpoints and not is_randomised(victim)
        confirm = self._confirm(samples, victim) if asks else None
        if not attack_kind(batch.step.kind).loss_curve:
            return *carry_out(batch, goal, conditions, confirm), [None] * len(samples)
        watch = Watch(goal, len(samples), batch.clean.device)
        outcome, problems = carry_out(batch, watch, conditions, confirm)
        return outcome, problems, watch.curves()

    def _confirm(self, samples: Sequence[Sample], victim: Victim) -> Confirm:
        """What tells whether images of some rows break their samples: what the victim says of them is scored."""
        task = self.setup.task

        def confirm(images: Tensor, rows: Tensor) -> Tensor:
            asked = [samples[row] for row in rows.tolist()]
            said = ask(victim, images, asked)
            broken = [
                answer.error is None and task.broken(score_of(task, answer, sample), sample)
                for answer, sample in zip(said, asked, strict=True)
            ]
            return torch.tensor(broken, dtype=torch.bool, device=rows.device)

        return confirm

    def _check(self, goal: Objective, batch: AttackBatch, outcome: Outcome) -> None:
        """Look at some of the first batch attacked, of a defended victim through its defence, while it is in memory."""
        few, victim = slice(CHECKED), self.setup.victim
        if self.checks is not None or (isinstance(victim, Defended) and not way_of(batch.step).defended):
            return
        if isinstance(victim, Defended):
            seed, samples = self.conditions.seed, batch.volley.samples[few]
            own, bpda = (replace(batch.step, through=way) for way in ("as-is", "bpda"))
            goal = fixed(victim, own, batch.clean[few], samples, seed)
            stand_in = None if victim.chain.own_gradient else fixed(victim, bpda, batch.clean[few], samples, seed)
            start = start_of(batch, self.conditions)[: len(samples)]
            self.checks = defence_checks(goal, stand_in, batch.clean[few], start)
            return
        start, some = start_of(batch, self.conditions)[few], Outcome(*(part[few] for part in outcome))
        kind = attack_kind(batch.step.kind)
        exact = self.setup.half is None or batch.step.precision == "float32"
        self.checks = batch_checks(goal, batch.clean_rows[few], start, some, batch.threat, kind, exact=exact)

    def to_keep(self, batch: AttackBatch, attacked: Attacked) -> list[AttackedImage]:
        """Of each sample, what is recorded: all steps of a robust one; of a broken one the first that broke it.

        The steps of a volley that a broken sample left unfinished claim nothing; their cost is that of the step that
        broke it.
        """
        kept: list[AttackedImage] = []
        for sample, images in zip(batch.volley.samples, attacked, strict=True):
            broke = next((one for one in images if self._breaks(one.record, sample)), None)
            if broke is None:
                kept += images
            else:
                spent = [one.record for one in images]
                kept.append(replace(broke, record=at_the_cost_of(broke.record, spent)))
        return kept


def at_the_cost_of(record: Record, spent: Sequence[Record]) -> Record:
    """A record with the evaluations and the time of several."""
    return msgspec.structs.replace(
        record,
        evaluations=sum(one.evaluations for one in spent),
        seconds=round(sum(one.seconds for one in spent), 4),
    )
