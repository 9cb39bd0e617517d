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

from torch import Tensor

from attacks.presets import EMBEDDING, AttackStep
from attacks.threat import ThreatModel
from bench.batch_size import TOO_LARGE, BatchSize, within_memory
from bench.config import RunConfig
from bench.errors import UsageError
from bench.progress import Display, Silent
from bench.records import Record, RunStore, open_run, read_records
from bench.records.worst import eps_label, worst_scores
from bench.running.attack_batch import Attempts, scored, threat_model
from bench.running.certify import Conditions, Job
from bench.running.images import ImageStore
from bench.running.load import Setup, prepare
from bench.running.sanity_checks import run_verdicts
from tasks.base import Answer, Sample
from tasks.protocol import PROTOCOLS

CLEAN = "clean"


def execute(config: RunConfig, *, display: Display | None = None) -> Path:
    """Carry out one run, resuming what is recorded already; returns its directory.

    Raises:
        UsageError: something that was asked for cannot be loaded.
        RecordsError: the directory holds another run, is in use, or cannot be written.
    """
    return carry_out(config, prepare(config), display=display)


def carry_out(config: RunConfig, setup: Setup, *, display: Display | None = None) -> Path:
    """Carry out a run on what is loaded already; errors as of `execute`."""
    _refuse_lost_images(config)
    with open_run(config.directory, setup.header, force=config.force) as store:
        runner = _Runner(config, setup, store, read_records(store.directory), display or Silent())
        runner.clean()
        runner.attack()
        store.finish("failed" if runner.failures() else "complete", runner.verdicts())
    return store.directory


def _refuse_lost_images(config: RunConfig) -> None:
    """Images are asked for, but a part of this run was carried out without keeping them."""
    if not config.save_adversarial or not (config.directory / "run.json").is_file():
        return
    lost = sum(r.step != CLEAN and r.score is not None and r.png_score is None for r in read_records(config.directory))
    if lost:
        raise UsageError(
            f"{config.directory} holds {lost} attacks that were carried out without --save-adversarial: their images "
            "are gone. Choose another --output, or delete the run"
        )


def best_goal(steps: Sequence[AttackStep], records: Sequence[Record], eps: float, sign: int) -> str:
    """The goal of the first step to which a sample owes its worst score; the first goal if none did harm.

    As in the released code of arXiv 2402.12336: only a strictly worse result counts, ties keep the earlier one.

    Args:
        steps: of the attack.
        records: of the sample, in order, its clean one among them.
        eps: radius as recorded.
        sign: 1 where the attacker lowers scores, -1 where he raises them.
    """
    goals = {step.name: step.goal for step in steps if step.goal != "best"}
    scores = [r for r in records if r.score is not None and (r.step == CLEAN or 0 < r.radius <= eps)]
    tried = [r for r in scores if r.step == CLEAN or r.step in goals]
    worst = min(tried, key=lambda r: (sign * (r.score or 0), r.step != CLEAN))
    return goals.get(worst.step, steps[0].goal)


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
        self.batches = BatchSize(config.batch_size, setup.images.device, max(setup.images[[0]].shape[-2:]))
        self.steps: Sequence[AttackStep] = config.steps
        keep = config.save_adversarial or any(step.start == "best" for step in self.steps)
        self.store = ImageStore(run.directory / "adversarial") if keep else None
        if self.store is not None:
            self.store.settle(self.done)  # what an earlier process recorded but did not live to put in place
        conditions = Conditions(
            seed=config.seed,
            first_checkpoint=PROTOCOLS[config.protocol].first_checkpoint,
            # an image for another model is made as strong as the steps allow
            stop_when_fooled=config.surrogate is None,
            store=self.store,
        )
        self.attempts = Attempts(config, setup, conditions)

    def clean(self) -> None:
        """Ask every sample unattacked."""
        rows = [i for i, s in enumerate(self.setup.samples) if (s.id, CLEAN, 0.0) not in self.done]
        rows = self._without_broken(rows)
        victim = self.attempts.judge("search")

        def ask(batch: list[int]) -> list[Record]:
            began = time.monotonic()
            samples, images = [self.setup.samples[i] for i in batch], self.setup.images[batch]
            predictions = victim.predict(images, samples)
            seconds = (time.monotonic() - began) / len(batch)
            return [
                scored(self.setup.task, s, CLEAN, 0.0, p, seconds=seconds)
                for s, p in zip(samples, predictions, strict=True)
            ]

        self._give_up(self._in_batches(rows, ask, CLEAN, 0.0), CLEAN, 0.0)

    def _without_broken(self, rows: list[int]) -> list[int]:
        """Record why some samples cannot be asked; the rows of the others."""
        broken, samples = self.setup.broken, self.setup.samples
        records = [
            scored(self.setup.task, samples[i], CLEAN, 0.0, Answer("", broken[samples[i].id]), seconds=0.0)
            for i in rows if samples[i].id in broken
        ]  # fmt: skip
        self._enter(records)
        return [i for i in rows if samples[i].id not in broken]

    def attack(self) -> None:
        """Take the attack's steps at each radius, smallest first, on the samples that still stand.

        An image that breaks a sample lies in every larger ball too, so a lost sample is not attacked again.
        """
        for eps in self.config.eps if self.steps else ():
            threat = threat_model(self.config.norm, eps)
            for _, volley in groupby(enumerate(self.steps), lambda pair: pair[1].volley or pair[0]):
                for steps, rows in self._standing([step for _, step in volley], eps).items():
                    self._take(steps, rows, eps, threat)

    def _standing(self, volley: list[AttackStep], eps: float) -> dict[tuple[AttackStep, ...], list[int]]:
        """Rows by the steps they are to take; the goal "best" becomes that of the worst result so far."""
        task = self.setup.task
        scores = self._scores(eps)
        by_steps: dict[tuple[AttackStep, ...], list[int]] = {}
        for row, sample in enumerate(self.setup.samples):
            if sample.id not in scores or task.lost(scores[sample.id], sample):
                continue
            steps = []
            for step in volley:
                goal = self._goal(step, sample, eps)
                fits = goal == EMBEDDING or task.applies(goal, sample)
                if fits and (sample.id, step.name, eps) not in self.done:
                    steps.append(replace(step, goal=goal))
            if steps:
                by_steps.setdefault(tuple(steps), []).append(row)
        return by_steps

    def _goal(self, step: AttackStep, sample: Sample, eps: float) -> str:
        if step.goal != "best":
            return step.goal
        return best_goal(self.steps, [r for r in self.records if r.sample_id == sample.id], eps, self.sign)

    def _scores(self, eps: float) -> dict[str, float]:
        """What each sample is left with at a radius by all that went well: a step that failed may be taken again."""
        return worst_scores(self.setup.header, [r for r in self.records if r.error is None], eps)

    def _take(self, steps: tuple[AttackStep, ...], rows: list[int], eps: float, threat: ThreatModel) -> None:
        """Take one step, or the steps of a volley side by side; one by one where memory has no room for them."""

        def strike(batch: list[int]) -> list[Record]:
            job = Job(steps, [self.setup.samples[i] for i in batch], self.setup.images[batch], eps, threat)
            records, images = self.attempts.settled(job, self.attempts.search(job))
            self._keep_worst(records, images, eps)
            return records

        name = steps[0].volley or steps[0].name
        left = self._in_batches(rows, strike, f"{name} {eps_label(eps, threat.norm)}", eps, width=len(steps))
        if len(steps) == 1:
            self._give_up(left, name, eps)
            return
        for step in steps if left else ():
            standing = {row for found in self._standing([step], eps).values() for row in found}
            self._take((step,), [row for row in left if row in standing], eps, threat)

    def _keep_worst(self, records: list[Record], images: Tensor, eps: float) -> None:
        """Let the images that are worse than all before them wait until their records are written."""
        if self.store is None:
            return
        best = self._scores(eps)
        for record, image in zip(records, images, strict=True):
            if record.score is not None and self.sign * record.score < self.sign * best[record.sample_id]:
                best[record.sample_id] = record.score
                self.store.put(record.sample_id, record.step, eps, image, png=self.config.save_adversarial)

    def _in_batches(
        self, rows: list[int], work: Callable[[list[int]], list[Record]], label: str, eps: float, width: int = 1
    ) -> list[int]:
        """Work through rows batch by batch, each recorded as it ends; `width` images a row are in memory at once.

        Returns the rows that do not fit into memory even alone.
        """
        too_large = []
        self.display.begin(f"{self.config.encoder} {self.config.dataset} {label}", len(rows))
        while rows:
            batch = rows[: max(1, self.batches.size // width)]
            records = within_memory(work, batch)
            if records is None:
                self.batches.out_of_memory(len(batch) * width)
                if len(batch) > 1:
                    continue
                too_large += batch
            else:
                self.batches.done(len(batch) * width)
                self._enter(records)
            rows = rows[len(batch) :]
            self.display.advance(len(batch), self._standings(eps))
        self.display.end()
        return too_large

    def _give_up(self, rows: list[int], step: str, eps: float) -> None:
        """Record that there is not enough memory for some samples."""
        samples = [self.setup.samples[row] for row in rows]
        answer = Answer("", TOO_LARGE)
        self._enter([scored(self.setup.task, s, step, eps, answer, seconds=0.0) for s in samples])

    def _enter(self, records: list[Record]) -> None:
        """Write records, then put their images in place."""
        self.append(records)
        if self.store is not None:
            self.store.settle(record.key for record in records)
        self.records += records
        self.done |= {record.key for record in records if record.error is None}

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
        latest = {record.key: record for record in self._without_moot_errors()}
        return sum(record.error is not None for record in latest.values())

    def _without_moot_errors(self) -> list[Record]:
        """All records but the errors of steps that were not taken again, for another one broke the sample."""
        samples = {sample.id: sample for sample in self.setup.samples}
        scores = {eps: worst_scores(self.setup.header, self.records, eps) for eps in (0.0, *self.setup.header.radii)}

        def is_moot(record: Record) -> bool:
            score = scores[record.radius].get(record.sample_id)
            return score is not None and self.setup.task.lost(score, samples[record.sample_id])

        return [r for r in self.records if r.error is None or not is_moot(r)]

    def verdicts(self) -> list[dict[str, Any]]:
        """Sanity checks on the finished run, to be stored with it."""
        records, first = self._without_moot_errors(), self.attempts.verdicts or ()
        return run_verdicts(self.config, self.setup.task, self.steps, records, first)
