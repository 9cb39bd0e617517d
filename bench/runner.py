"""The loop: samples from a task, through an attack, past a model, into an append-only record.

Every adversarial image is certified in float32 before the model sees it; every random start is drawn from (seed,
sample, step, radius), so results depend on neither batch size nor order nor resume.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attacks.outcome import Outcome
from attacks.presets import EMBEDDING, AttackStep
from attacks.threat import ThreatModel
from bench.adversarial import ImageStore, as_png
from bench.batches import BatchSize
from bench.config import RunConfig, preset
from bench.course import watched
from bench.progress import Display, Silent
from bench.records import Record, RunStore, open_run, read_records
from bench.search import Conditions, Job, objective, search, start_of
from bench.setup import Setup, prepare
from bench.stats import worst_scores
from bench.verdicts import FirstBatch, run_verdicts
from tasks.base import Sample, Victim
from tasks.protocol import PROTOCOLS

CLEAN = "clean"
CHECKED = 32  # samples of the first batch attacked that the sanity checks look at; each costs a few passes


def execute(config: RunConfig, *, display: Display | None = None) -> Path:
    """Carry out one run, resuming what is recorded already; returns its directory.

    Raises:
        UsageError: something that was asked for cannot be loaded.
        RecordsError: the directory holds another run, is in use, or cannot be written.
    """
    return carry_out(config, prepare(config), display=display)


def carry_out(config: RunConfig, setup: Setup, *, display: Display | None = None) -> Path:
    """Carry out a run on what is loaded already; errors as of `execute`."""
    with open_run(config.directory, setup.header, force=config.force) as store:
        runner = _Runner(config, setup, store, read_records(store.directory), display or Silent())
        runner.clean()
        runner.attack()
        store.finish("failed" if runner.failures() else "complete", runner.verdicts())
    return store.directory


class _Runner:
    """One run's state: what is recorded, and how each sample stands."""

    def __init__(
        self,
        config: RunConfig,
        setup: Setup,
        run: RunStore,
        recorded: list[Record],
        display: Display,
    ) -> None:
        self.config, self.setup, self.append = config, setup, run.append
        self.done = set(run.done)
        self.records = list(recorded)
        self.display = display
        self.sign = 1 if setup.task.worst == "min" else -1
        self.first_batch: FirstBatch | None = None  # what the checks of the first batch attacked said
        self.batches = BatchSize(config.batch_size, setup.images.device)
        self.steps: Sequence[AttackStep] = () if config.attack == "none" else preset(config.attack).steps
        keep = config.save_adversarial or any(step.start == "best" for step in self.steps)
        self.store = ImageStore(run.directory / "adversarial") if keep else None
        if self.store is not None:
            self.store.settle(self.done)  # what an earlier process recorded but did not live to put in place
        self.protocol = PROTOCOLS[config.protocol]
        self.conditions = Conditions(
            seed=config.seed,
            first_checkpoint=self.protocol.first_checkpoint,
            # an image for another model is made as strong as the steps allow
            stop_when_fooled=config.surrogate is None,
            store=self.store,
        )

    def clean(self) -> None:
        """Ask every sample unattacked."""
        rows = [i for i, s in enumerate(self.setup.samples) if (s.id, CLEAN, 0.0) not in self.done]
        rows = self._without_broken(rows)
        victim = self._judge("search")

        def ask(batch: list[int]) -> list[Record]:
            began = time.monotonic()
            samples, images = [self.setup.samples[i] for i in batch], self.setup.images[batch]
            predictions = victim.predict(images, samples)
            seconds = (time.monotonic() - began) / len(batch)
            return [self._record(s, CLEAN, 0.0, p, seconds=seconds) for s, p in zip(samples, predictions, strict=True)]

        self._in_batches(rows, ask, CLEAN, 0.0)

    def _without_broken(self, rows: list[int]) -> list[int]:
        """Record why some samples cannot be asked; the rows of the others."""
        broken, samples = self.setup.broken, self.setup.samples
        records = [
            self._record(samples[i], CLEAN, 0.0, "", seconds=0.0, error=broken[samples[i].id])
            for i in rows if samples[i].id in broken
        ]  # fmt: skip
        self.append(records)
        self.records += records
        return [i for i in rows if samples[i].id not in broken]

    def _judge(self, precision: str) -> Victim:
        """Whose word counts for a step of this precision: only a protocol that says so trusts half precision."""
        half = self.setup.half if precision == "search" and self.config.surrogate is None else None
        return half.victim if half is not None and self.protocol.half_verdicts else self.setup.victim

    def attack(self) -> None:
        """Take the attack's steps at each radius, smallest first, on the samples that still stand.

        An image that breaks a sample lies in every larger ball too, so a lost sample is not attacked again.
        """
        for eps in self.config.eps if self.steps else ():
            unit = 255 if self.config.norm == "linf" else 1
            threat = ThreatModel(self.config.norm, eps / unit)  # type: ignore[arg-type]
            for _, volley in groupby(enumerate(self.steps), lambda pair: pair[1].volley or pair[0]):
                for steps, rows in self._standing([step for _, step in volley], eps).items():
                    self._take(steps, rows, eps, threat)

    def _standing(self, volley: list[AttackStep], eps: float) -> dict[tuple[AttackStep, ...], list[int]]:
        """Rows by the steps they are to take; the goal "best" becomes that of the worst result so far."""
        task = self.setup.task
        scores = worst_scores(self.setup.header, self.records, eps)
        by_steps: dict[tuple[AttackStep, ...], list[int]] = {}
        for row, sample in enumerate(self.setup.samples):
            if sample.id not in scores or task.lost(scores[sample.id], sample):
                continue
            steps = []
            for step in volley:
                goal = self._best_goal(sample, eps) if step.goal == "best" else step.goal
                fits = goal == EMBEDDING or task.applies(goal, sample)
                if fits and (sample.id, step.name, eps) not in self.done:
                    steps.append(replace(step, goal=goal))
            if steps:
                by_steps.setdefault(tuple(steps), []).append(row)
        return by_steps

    def _best_goal(self, sample: Sample, eps: float) -> str:
        goals = {step.name: step.goal for step in self.steps}
        tried = [
            r for r in self.records
            if r.sample_id == sample.id and r.error is None and 0 < r.eps_255 <= eps and goals.get(r.step) != "best"
        ]  # fmt: skip
        return goals[min(tried, key=lambda r: self.sign * (r.score or 0)).step] if tried else self.steps[0].goal

    def _take(self, steps: tuple[AttackStep, ...], rows: list[int], eps: float, threat: ThreatModel) -> None:
        def strike(batch: list[int]) -> list[Record]:
            samples = [self.setup.samples[i] for i in batch]
            job = Job(steps, samples, self.setup.images[batch], eps, threat)
            records, images = self._search(job)
            records, kept = self._settled(records, samples)
            self._keep_worst(records, images[kept], eps)
            return records

        name = steps[0].volley or steps[0].name
        label = f"{name} {eps:g}/255" if threat.norm == "linf" else f"{name} {eps:g}"
        self._in_batches(rows, strike, label, eps, width=len(steps))

    def _search(self, job: Job) -> tuple[list[Record], Tensor]:
        """Records and images (G B, 3, H, W) of a job, searched in the precision of its steps.

        What a search in half precision finds is judged in float32, and what it does not break is searched again in
        float32, so that the result is no weaker; the protocol may forgo both.
        """
        half = self.setup.half if job.steps[0].precision == "search" else None
        if half is None:
            return self._attempt(job, self.setup.surrogate, self.setup.encoder, self.setup.victim)
        judge = self._judge("search")
        records, images = self._attempt(job, half.victim, half.encoder, judge)
        lost = {
            record.sample_id
            for record, sample in zip(records, job.sample_rows, strict=True)
            if record.score is not None and self.setup.task.lost(record.score, sample)
        }
        left = [k for k, sample in enumerate(job.samples) if sample.id not in lost]
        if self.protocol.half_verdicts or not self.conditions.stop_when_fooled or not left:
            return records, images
        again = replace(job, samples=[job.samples[k] for k in left], clean=job.clean[left])
        rows = [g * len(job.samples) + k for g in range(len(job.steps)) for k in left]
        second, found = self._attempt(again, self.setup.surrogate, self.setup.encoder, self.setup.victim)
        for row, record, image in zip(rows, second, found, strict=True):
            first = records[row]
            worse = first.score is None or (
                record.score is not None and self.sign * record.score <= self.sign * first.score
            )
            if worse:
                images[row] = image
            records[row] = replace(
                record if worse else first,
                evaluations=first.evaluations + record.evaluations,
                seconds=round(first.seconds + record.seconds, 4),
            )
        return records, images

    def _attempt(self, job: Job, source: Victim, encoder: Any, judge: Victim) -> tuple[list[Record], Tensor]:
        """Attack through one model, judge by another."""
        began = time.monotonic()
        goal = objective(job, source, encoder)
        samples = job.sample_rows
        seen, courses = watched(goal, job.steps[0].kind, len(samples), job.clean.device)
        outcome, problems = search(job, seen, self.conditions)
        climbed = courses()
        if self.first_batch is None:
            few = slice(CHECKED)
            self.first_batch = FirstBatch.of(
                goal, job.repeated[few], start_of(job, self.conditions)[few], Outcome(*(part[few] for part in outcome)),
                job.threat,
            )  # fmt: skip
        predictions = judge.predict(outcome.images, samples)
        saved = judge.predict(as_png(outcome.images), samples) if self.config.save_adversarial else None
        seconds = (time.monotonic() - began) / len(samples)
        distances = job.threat.distance(outcome.images, job.repeated) * (255 if job.threat.norm == "linf" else 1)
        records = []
        for k, sample in enumerate(samples):
            step = job.steps[k // len(job.samples)].name
            record = self._record(
                sample, step, job.eps, predictions[k], seconds=seconds, error=problems[k],
                loss=float(outcome.loss[k]), distance=float(distances[k]), evaluations=int(outcome.evaluations[k]),
            )  # fmt: skip
            if record.error is None:
                png_score = None if saved is None else self.setup.task.score(saved[k], sample)
                record = replace(record, png_score=png_score, course=climbed[k])
            records.append(record)
        return records, outcome.images

    def _settled(self, records: list[Record], samples: Sequence[Sample]) -> tuple[list[Record], list[int]]:
        """Of a volley's records, those to keep, with their rows: all of a sample that stands, one of a lost one.

        The steps that a lost sample left unfinished claim nothing; their cost is that of the step that broke it.
        """
        size = len(samples)
        if len(records) == size:
            return records, list(range(size))
        kept, rows = [], []
        for k, sample in enumerate(samples):
            mine = range(k, len(records), size)
            broke = [r for r in mine if (score := records[r].score) is not None and self.setup.task.lost(score, sample)]
            for r in broke[:1] or mine:
                cost = [records[r]] if not broke else [records[m] for m in mine]
                kept.append(
                    replace(
                        records[r],
                        evaluations=sum(one.evaluations for one in cost),
                        seconds=round(sum(one.seconds for one in cost), 4),
                    )
                )
                rows.append(r)
        return kept, rows

    def _keep_worst(self, records: list[Record], images: Tensor, eps: float) -> None:
        """Let the images that are worse than all before them wait until their records are written."""
        if self.store is None:
            return
        best = worst_scores(self.setup.header, self.records, eps)
        for record, image in zip(records, images, strict=True):
            if record.score is not None and self.sign * record.score < self.sign * best[record.sample_id]:
                best[record.sample_id] = record.score
                self.store.put(record.sample_id, record.step, eps, image, png=self.config.save_adversarial)

    def _record(
        self, sample: Sample, step: str, eps: float, prediction: str, *, seconds: float, error: str | None = None,
        loss: float | None = None, distance: float = 0.0, evaluations: int = 0,
    ) -> Record:  # fmt: skip
        score = None if error else self.setup.task.score(prediction, sample)
        return Record(
            sample.id, sample.group, step, eps, "" if error else prediction, score, loss, distance, evaluations, (),
            error, round(seconds, 4),
        )  # fmt: skip

    def _in_batches(
        self, rows: list[int], work: Callable[[list[int]], list[Record]], label: str, eps: float, width: int = 1
    ) -> None:
        """Work through rows batch by batch, each recorded as it ends; `width` images a row are in memory at once."""
        self.display.begin(f"{self.config.encoder} {self.config.dataset} {label}", len(rows))
        while rows:
            batch = rows[: max(1, self.batches.size // width)]
            try:
                records = work(batch)
            except torch.OutOfMemoryError:
                self.batches.out_of_memory(len(batch) * width)
                if len(batch) == 1:
                    raise
                continue
            self.batches.done(len(batch) * width)
            self.append(records)
            if self.store is not None:
                self.store.settle(record.key for record in records)
            self.records += records
            self.done |= {record.key for record in records if record.error is None}
            rows = rows[len(batch) :]
            self.display.advance(len(batch), self._standings(eps))
        self.display.end()

    def _standings(self, eps: float) -> str:
        """How the run stands at a radius, in words."""
        scores = worst_scores(self.setup.header, self.records, eps)
        if not scores:
            return ""
        samples = {sample.id: sample for sample in self.setup.samples}
        standing = sum(not self.setup.task.lost(score, samples[key]) for key, score in scores.items())
        mean = sum(scores.values()) / len(scores)
        return f"{standing} of {len(scores)} standing, {self.setup.task.metric} {mean:.1f}"

    def failures(self) -> int:
        """Samples whose last word is an error."""
        latest = {record.key: record for record in self.records}
        return sum(record.error is not None for record in latest.values())

    def verdicts(self) -> list[dict[str, Any]]:
        """Sanity checks on the finished run, to be stored with it."""
        first = self.first_batch.verdicts() if self.first_batch is not None else []
        return run_verdicts(self.config, self.setup.task, self.steps, self.records, first)
