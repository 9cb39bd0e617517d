"""Attacking one batch, as often as it takes: in half precision, in float32, and on past a success that was none."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import msgspec
import torch
from torch import Tensor

from attacks.checks import SanityCheck
from attacks.kinds import Confirm
from attacks.objective import Objective
from attacks.outcome import Outcome
from bench.config import RunConfig
from bench.records import Record
from bench.records.worst import is_worse
from bench.running.certify import AttackBatch, Conditions, carry_out, objective, start_of
from bench.running.images import as_png
from bench.running.kinds import attack_kind
from bench.running.load import Setup
from bench.running.loss_curve import LossCurve, Watch
from bench.running.plugins import ask, score_of
from bench.running.sanity_checks import batch_checks
from bench.running.units import UNITS
from tasks.base import Answer, ImageTextEncoder, Sample, Task, Victim
from tasks.protocol import PROTOCOLS

CHECKED = 32  # samples of the first batch attacked that the sanity checks look at; each costs a few passes


def scored(task: Task, sample: Sample, step: str, eps: float, answer: Answer, *, seconds: float) -> Record:
    """The record of one answer, or of one error, which has no score."""
    text, score = ("", None) if answer.error else (answer.text, score_of(task, answer, sample))
    return Record(
        sample_id=sample.id,
        group=sample.group,
        step=step,
        radius=eps,
        prediction=text,
        score=score,
        loss=None,
        distance=0.0,
        evaluations=0,
        error=answer.error,
        seconds=round(seconds, 4),
        call=answer.call,
    )


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
    encoder: ImageTextEncoder
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
        full = Models(self.setup.surrogate, self.setup.encoder, self.setup.victim)
        half = self.setup.half if batch.step.precision == "search" else None
        used = full if half is None else Models(half.victim, half.encoder, self.victim("search"))
        found = self._once(batch, used, self.conditions)
        if not self.conditions.stop_when_fooled:
            return found
        if half is not None and not self.protocol.half_verdicts:
            used = full
            found = self._again(batch, found, lambda images: True, used, self.conditions)
        onwards = replace(self.conditions, stop_when_fooled=False)
        return self._again(batch, found, lambda images: any(one.claimed for one in images), used, onwards)

    def _breaks(self, record: Record, sample: Sample) -> bool:
        return record.score is not None and self.setup.task.broken(record.score, sample)

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
        first, second = one.record.score, other.record.score
        better = first is not None and (second is None or is_worse(self.setup.task.worst, first, second))
        kept = one if better else other
        return AttackedImage(at_the_cost_of(kept.record, [one.record, other.record]), kept.image, other.claimed)

    def _once(self, batch: AttackBatch, models: Models, conditions: Conditions) -> Attacked:
        """Attack through one model, ask another."""
        began = time.monotonic()
        made = self._make(batch, models, conditions)
        outcome, problems = made.outcome, made.problems
        answers = self._answers(batch.volley.sample_rows, outcome.images, problems, models.victim)
        seconds = (time.monotonic() - began) / len(answers)
        fooled, spent = (part.tolist() for part in (outcome.fooled, outcome.evaluations))
        distances = (batch.threat.distance(outcome.images, batch.clean_rows) * UNITS[batch.threat.norm]).tolist()
        rows = []
        for k, (step, sample) in enumerate(batch.volley.rows):
            answer, png_score = answers[k]
            record = msgspec.structs.replace(
                scored(self.setup.task, sample, step.name, batch.eps, answer, seconds=seconds),
                loss=made.losses[k],
                distance=distances[k],
                evaluations=spent[k],
                png_score=png_score,
                loss_curve=None if answer.error else made.curves[k],
            )
            rows.append(AttackedImage(record, outcome.images[k], fooled[k] and problems[k] is None))
        return batch.volley.by_sample(rows)

    def _make(self, batch: AttackBatch, models: Models, conditions: Conditions) -> Made:
        """The batch's adversarial images."""
        goal = objective(batch, models.source, models.encoder)
        outcome, problems, curves = self._carry_out(batch, goal, models.victim, conditions)
        self._check(goal, batch, outcome)
        return Made(outcome, outcome.loss.tolist(), problems, curves)

    def clean_answers(self, samples: Sequence[Sample], images: Tensor) -> list[tuple[Answer, float | None]]:
        """The victim's answers to clean images, and their scores as 8-bit PNGs where those take another path."""
        exact = ask(self.victim("search"), images, samples)
        if self.setup.deployed is None:
            return [(answer, None) for answer in exact]
        return self._with_pngs(samples, images, exact, self.setup.deployed)

    def _answers(
        self, samples: Sequence[Sample], images: Tensor, problems: Sequence[str | None], victim: Victim
    ) -> list[tuple[Answer, float | None]]:
        """The victim's answers, or what is wrong, and the scores of 8-bit PNGs if saved, or if they take another path.

        Where they do, the model that is deployed is asked about them.
        """
        said = zip(ask(victim, images, samples), problems, strict=True)
        exact = [replace(answer, error=problem or answer.error) for answer, problem in said]
        if not self.config.save_adversarial and self.setup.deployed is None:
            return [(answer, None) for answer in exact]
        return self._with_pngs(samples, images, exact, self.setup.deployed or victim)

    def _with_pngs(
        self, samples: Sequence[Sample], images: Tensor, exact: Sequence[Answer], victim: Victim
    ) -> list[tuple[Answer, float | None]]:
        """Answers to images, and the scores of what a victim says of their 8-bit PNGs."""
        found: list[tuple[Answer, float | None]] = []
        rounded = as_png(images)
        same = self.setup.deployed is None and torch.equal(rounded, images)
        for k, png in enumerate(exact if same else ask(victim, rounded, samples)):
            error = exact[k].error or (png.error and f"as an 8-bit PNG, {png.error}")
            score = None if error else score_of(self.setup.task, png, samples[k])
            found.append((replace(exact[k], error=error), score))
        return found

    def _carry_out(
        self, batch: AttackBatch, goal: Objective, victim: Victim, conditions: Conditions
    ) -> tuple[Outcome, list[str | None], list[LossCurve | None]]:
        """What was found, what is wrong with it, and the loss curve, row by row."""
        samples = batch.volley.sample_rows
        confirm = self._confirm(samples, victim) if self.protocol.asks_at_checkpoints else None
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
        """Look at some of the first batch attacked while it is in memory."""
        if self.checks is not None:
            return
        few = slice(CHECKED)
        start, some = start_of(batch, self.conditions)[few], Outcome(*(part[few] for part in outcome))
        kind = attack_kind(batch.step.kind)
        self.checks = batch_checks(goal, batch.clean_rows[few], start, some, batch.threat, kind)

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
