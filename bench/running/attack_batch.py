"""One job, searched as often as it takes: in half precision, in float32, and on past a success that was none."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import torch
from torch import Tensor

from attacks.checks import Verdict
from attacks.kinds import Confirm
from attacks.objective import Objective
from attacks.outcome import Outcome
from attacks.threat import ThreatModel
from bench.config import RunConfig
from bench.records import Record
from bench.running.certify import Conditions, Job, objective, search, start_of
from bench.running.images import as_png
from bench.running.load import Setup
from bench.running.loss_curve import watched
from bench.running.sanity_checks import batch_verdicts
from tasks.base import Answer, Sample, Task, Victim
from tasks.protocol import PROTOCOLS

CHECKED = 32  # samples of the first batch attacked that the sanity checks look at; each costs a few passes
UNITS = {"linf": 255, "l2": 1}  # of a recorded radius or distance, in the range of a pixel


def scored(
    task: Task, sample: Sample, step: str, eps: float, answer: Answer, *, seconds: float, loss: float | None = None,
    distance: float = 0.0, evaluations: int = 0,
) -> Record:  # fmt: skip
    """The record of one answer, or of one error, which has no score."""
    text, score = ("", None) if answer.error else (answer.text, task.score(answer.text, sample))
    return Record(
        sample.id, sample.group, step, eps, text, score, loss, distance, evaluations, answer.error,
        round(seconds, 4),
    )  # fmt: skip


@dataclass(frozen=True)
class Found:
    """What a job found, row by row.

    Attributes:
        records: G B.
        images: (G B, 3, H, W), inside the ball.
        claimed: whether the objective took the image for a success, at which the search stopped.
    """

    records: list[Record]
    images: Tensor
    claimed: list[bool]


class Attempts:
    """Searches of a run's jobs, judged by the model that counts."""

    def __init__(self, config: RunConfig, setup: Setup, conditions: Conditions) -> None:
        self.config, self.setup, self.conditions = config, setup, conditions
        self.protocol = PROTOCOLS[config.protocol]
        self.sign = 1 if setup.task.worst == "min" else -1
        self.verdicts: tuple[Verdict, ...] | None = None  # of the checks of the first batch attacked

    def judge(self, precision: str) -> Victim:
        """Whose word counts for a step of this precision: only a protocol that says so trusts half precision."""
        half = self.setup.half if precision == "search" and self.config.surrogate is None else None
        return half.victim if half is not None and self.protocol.half_verdicts else self.setup.victim

    def search(self, job: Job) -> Found:
        """Search in the precision of the job's steps, and again where that may have been too weak.

        What a search in half precision finds is judged in float32, and what it does not break is searched again in
        float32, so that the result is no weaker; the protocol may forgo both. Where a search stopped at what its
        objective took for a success, and the judge does not agree, it is carried on to its last step.
        """
        full = (self.setup.surrogate, self.setup.encoder, self.setup.victim)
        half = self.setup.half if job.steps[0].precision == "search" else None
        used = full if half is None else (half.victim, half.encoder, self.judge("search"))
        found = self._attempt(job, *used)
        if not self.conditions.stop_when_fooled:
            return found
        if half is not None and not self.protocol.half_verdicts:
            used = full
            found = self._again(job, found, self._standing(job, found), self.conditions, *used)
        deceived = [k for k in self._standing(job, found) if any(found.claimed[k :: len(job.samples)])]
        return self._again(job, found, deceived, replace(self.conditions, stop_when_fooled=False), *used)

    def _standing(self, job: Job, found: Found) -> list[int]:
        """The samples that no row of theirs breaks."""
        size = len(job.samples)
        return [
            k
            for k, sample in enumerate(job.samples)
            if not any(self._lost(record, sample) for record in found.records[k::size])
        ]

    def _lost(self, record: Record, sample: Sample) -> bool:
        return record.score is not None and self.setup.task.lost(record.score, sample)

    def _again(
        self, job: Job, found: Found, samples: list[int], conditions: Conditions, source: Victim, encoder: Any,
        judge: Victim,
    ) -> Found:  # fmt: skip
        """Search again for some of the samples; of two results of a row, the one that is worse for the model."""
        if not samples:
            return found
        some = replace(job, samples=[job.samples[k] for k in samples], clean=job.clean[samples])
        second = self._attempt(some, source, encoder, judge, conditions)
        rows = [g * len(job.samples) + k for g in range(len(job.steps)) for k in samples]
        records, images, claimed = list(found.records), found.images.clone(), list(found.claimed)
        for n, row in enumerate(rows):
            one, other = records[row], second.records[n]
            worse = one.score is None or (other.score is not None and self.sign * other.score <= self.sign * one.score)
            if worse:
                images[row] = second.images[n]
            claimed[row] = second.claimed[n]
            records[row] = msgspec.structs.replace(
                other if worse else one,
                evaluations=one.evaluations + other.evaluations,
                seconds=round(one.seconds + other.seconds, 4),
            )
        return Found(records, images, claimed)

    def _attempt(
        self, job: Job, source: Victim, encoder: Any, judge: Victim, conditions: Conditions | None = None
    ) -> Found:
        """Attack through one model, judge by another."""
        began = time.monotonic()
        goal = objective(job, source, encoder)
        samples = job.sample_rows
        seen, curves = watched(goal, job.steps[0].kind, len(samples), job.clean.device)
        confirm = self._confirm(samples, judge) if self.protocol.asks_at_checkpoints else None
        outcome, problems = search(job, seen, conditions or self.conditions, confirm)
        climbed = curves()
        self._check(goal, job, outcome)
        predictions = judge.predict(outcome.images, samples)
        saved = judge.predict(as_png(outcome.images), samples) if self.config.save_adversarial else None
        seconds = (time.monotonic() - began) / len(samples)
        distances = job.threat.distance(outcome.images, job.repeated) * UNITS[job.threat.norm]
        records = []
        for k, sample in enumerate(samples):
            step = job.steps[k // len(job.samples)].name
            png = None if saved is None else saved[k]
            answer = replace(predictions[k], error=problems[k] or _error(predictions[k], png))
            record = scored(
                self.setup.task, sample, step, job.eps, answer, seconds=seconds,
                loss=float(outcome.loss[k]), distance=float(distances[k]), evaluations=int(outcome.evaluations[k]),
            )  # fmt: skip
            if record.error is None:
                png_score = None if png is None else self.setup.task.score(png.text, sample)
                record = msgspec.structs.replace(record, png_score=png_score, loss_curve=climbed[k])
            records.append(record)
        fooled = outcome.fooled.tolist()
        claimed = [fooled[k] and problems[k] is None for k in range(len(samples))]
        return Found(records, outcome.images, claimed)

    def _confirm(self, samples: Sequence[Sample], judge: Victim) -> Confirm:
        """What tells whether images of some rows break their samples: what the judge says of them is scored."""
        task = self.setup.task

        def confirm(images: Tensor, rows: Tensor) -> Tensor:
            asked = [samples[row] for row in rows.tolist()]
            said = judge.predict(images, asked)
            lost = [
                answer.error is None and task.lost(task.score(answer.text, sample), sample)
                for answer, sample in zip(said, asked, strict=True)
            ]
            return torch.tensor(lost, dtype=torch.bool, device=rows.device)

        return confirm

    def _check(self, goal: Objective, job: Job, outcome: Outcome) -> None:
        """Look at some of the first batch attacked while it is in memory."""
        if self.verdicts is not None:
            return
        few = slice(CHECKED)
        start, some = start_of(job, self.conditions)[few], Outcome(*(part[few] for part in outcome))
        self.verdicts = batch_verdicts(goal, job.repeated[few], start, some, job.threat)

    def settled(self, job: Job, found: Found) -> tuple[list[Record], Tensor]:
        """Of a volley's rows, those to keep: all of a sample that stands, one of a lost one.

        The steps that a lost sample left unfinished claim nothing; their cost is that of the step that broke it.
        """
        size = len(job.samples)
        if len(job.steps) == 1:
            return found.records, found.images
        rows, records = [], []
        for k, sample in enumerate(job.samples):
            mine = range(k, len(found.records), size)
            broke = [r for r in mine if self._lost(found.records[r], sample)]
            for r in broke[:1] or mine:
                cost = [found.records[m] for m in (mine if broke else [r])]
                records.append(_at_the_cost_of(found.records[r], cost))
                rows.append(r)
        return records, found.images[rows]


def _at_the_cost_of(record: Record, cost: Sequence[Record]) -> Record:
    return msgspec.structs.replace(
        record,
        evaluations=sum(one.evaluations for one in cost),
        seconds=round(sum(one.seconds for one in cost), 4),
    )


def _error(exact: Answer, png: Answer | None) -> str | None:
    """Why the answers to an image, exact and as an 8-bit PNG if that was asked for, count for nothing."""
    if exact.error is None and png is not None and png.error is not None:
        return f"as an 8-bit PNG, {png.error}"
    return exact.error


def threat_model(norm: str, eps: float) -> ThreatModel:
    """The ball of a radius as it is recorded: in 1/255 for l-inf, in plain units for l2."""
    return ThreatModel(norm, eps / UNITS[norm])  # type: ignore[arg-type]
