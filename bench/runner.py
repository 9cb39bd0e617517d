"""The loop: samples from a task, through an attack, past a model, into an append-only record.

Every adversarial image is certified here, in float32, before the model sees it; every random start is drawn here, from
(seed, sample, step, radius), so results depend on neither batch size nor order nor resume.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from attacks.apgd import apgd
from attacks.checks import Verdict, gradient_verdict
from attacks.outcome import Outcome
from attacks.pgd import pgd
from attacks.presets import AttackStep
from attacks.threat import ThreatModel
from bench.adversarial import ImageStore
from bench.config import RunConfig, preset
from bench.errors import UsageError
from bench.records import Record, open_run, read_records
from bench.setup import Setup, prepare
from bench.stats import worst_scores
from tasks.base import Sample

CLEAN = "clean"


def execute(config: RunConfig, *, progress: bool = True) -> Path:
    """Carry out one run, resuming what is recorded already; returns its directory.

    Raises:
        UsageError: something that was asked for cannot be loaded.
        RecordsError: the directory holds another run, is in use, or cannot be written.
    """
    return carry_out(config, prepare(config), progress=progress)


def carry_out(config: RunConfig, setup: Setup, *, progress: bool = True) -> Path:
    """Carry out a run on what is loaded already; errors as of `execute`."""
    with open_run(config.directory, setup.header) as store:
        recorded = read_records(config.directory)
        runner = _Runner(config, setup, store.append, store.done, recorded, progress)
        runner.clean()
        runner.attack()
        store.finish("failed" if runner.failures() else "complete", runner.verdicts())
    return config.directory


class _Runner:
    """One run's state: what is recorded, and how each sample stands."""

    def __init__(
        self,
        config: RunConfig,
        setup: Setup,
        append: Callable[[list[Record]], None],
        done: frozenset[tuple[str, str, float]],
        recorded: list[Record],
        progress: bool,
    ) -> None:
        self.config, self.setup, self.append = config, setup, append
        self.done = set(done)
        self.records = list(recorded)
        self.progress = progress
        self.gradient: Verdict | None = None  # of the first batch attacked
        self.batch_size = config.batch_size or (256 if setup.images.device.type == "cpu" else 64)
        self.steps: Sequence[AttackStep] = () if config.attack == "none" else preset(config.attack).steps
        keep = config.save_adversarial or any(step.start == "best" for step in self.steps)
        self.store = ImageStore(config.directory / "adversarial") if keep else None

    def clean(self) -> None:
        """Ask every sample unattacked."""
        rows = [i for i, s in enumerate(self.setup.samples) if (s.id, CLEAN, 0.0) not in self.done]

        def ask(batch: list[int]) -> list[Record]:
            began = time.monotonic()
            samples, images = [self.setup.samples[i] for i in batch], self.setup.images[batch]
            predictions = self.setup.victim.predict(images, samples)
            seconds = (time.monotonic() - began) / len(batch)
            return [self._record(s, CLEAN, 0.0, p, seconds=seconds) for s, p in zip(samples, predictions, strict=True)]

        self._in_batches(rows, ask, CLEAN)

    def attack(self) -> None:
        """Take the attack's steps at each radius, smallest first, on the samples that still stand.

        An image that breaks a sample lies in every larger ball too, so a lost sample is not attacked again.
        """
        for eps in self.config.eps if self.steps else ():
            unit = 255 if self.config.norm == "linf" else 1
            threat = ThreatModel(self.config.norm, eps / unit)  # type: ignore[arg-type]
            for step in self.steps:
                for goal, rows in self._standing(step, eps).items():
                    self._take(step, goal, rows, eps, threat)

    def _standing(self, step: AttackStep, eps: float) -> dict[str, list[int]]:
        """Rows that a step attacks, by goal; "best" becomes the goal of the worst result so far."""
        task = self.setup.task
        scores = worst_scores(self.setup.header, self.records, eps)
        by_goal: dict[str, list[int]] = {}
        for row, sample in enumerate(self.setup.samples):
            if (sample.id, step.name, eps) in self.done or sample.id not in scores:
                continue
            goal = self._best_goal(sample, eps) if step.goal == "best" else step.goal
            if not task.lost(scores[sample.id], sample) and task.applies(goal, sample):
                by_goal.setdefault(goal, []).append(row)
        return by_goal

    def _best_goal(self, sample: Sample, eps: float) -> str:
        goals = {step.name: step.goal for step in self.steps}
        sign = 1 if self.setup.task.worst == "min" else -1
        tried = [
            r for r in self.records
            if r.sample_id == sample.id and r.error is None and 0 < r.eps_255 <= eps and goals.get(r.step) != "best"
        ]  # fmt: skip
        return goals[min(tried, key=lambda r: sign * (r.score or 0)).step] if tried else self.steps[0].goal

    def _take(self, step: AttackStep, goal: str, rows: list[int], eps: float, threat: ThreatModel) -> None:
        def strike(batch: list[int]) -> list[Record]:
            began = time.monotonic()
            samples, clean = [self.setup.samples[i] for i in batch], self.setup.images[batch]
            objective = self.setup.surrogate.objective(clean, samples, goal)
            if self.gradient is None:
                self.gradient = gradient_verdict(objective, clean)
            outcome = self._ascend(step, objective, clean, samples, eps, threat)
            allowed = threat.contains(outcome.images, clean) & ~outcome.failed
            shown = torch.where(allowed[:, None, None, None], outcome.images, clean)
            predictions = self.setup.victim.predict(shown, samples)
            seconds = (time.monotonic() - began) / len(batch)
            distances = threat.distance(shown, clean) * (255 if threat.norm == "linf" else 1)
            records = []
            for k, sample in enumerate(samples):
                error = None
                if bool(outcome.failed[k]):
                    error = "the loss or its gradient is not finite"
                elif not bool(allowed[k]):
                    error = "the attack left the threat model"
                records.append(
                    self._record(
                        sample, step.name, eps, predictions[k], seconds=seconds, error=error,
                        loss=float(outcome.loss[k]), distance=float(distances[k]),
                        evaluations=int(outcome.evaluations[k]),
                    )
                )  # fmt: skip
            self._keep_worst(records, shown, eps)
            return records

        self._in_batches(rows, strike, f"{step.name} {eps:g}/255" if threat.norm == "linf" else f"{step.name} {eps:g}")

    def _ascend(
        self, step: AttackStep, objective: Any, clean: Tensor, samples: list[Sample], eps: float, threat: ThreatModel
    ) -> Outcome:
        init = None
        if step.start == "random":
            streams = [_stream(self.config.seed, s.id, step.name, eps) for s in samples]
            init = threat.random_start(clean, streams)
        elif step.start == "best":
            assert self.store is not None
            init = self.store.worst(samples, clean, eps)
        stop = self.config.surrogate is None  # an image for another model is made as strong as the steps allow
        if step.kind == "apgd":
            return apgd(
                objective, clean, threat, steps=step.steps, init=init, first_step=step.first_step,
                stop_when_fooled=stop,
            )  # fmt: skip
        return pgd(
            objective, clean, threat, steps=step.steps, step_size=step.first_step * threat.eps, init=init,
            stop_when_fooled=stop,
        )  # fmt: skip

    def _keep_worst(self, records: list[Record], images: Tensor, eps: float) -> None:
        """Save the images that are worse than all before them, before their records are written."""
        if self.store is None:
            return
        best, sign = worst_scores(self.setup.header, self.records, eps), 1 if self.setup.task.worst == "min" else -1
        for record, image in zip(records, images, strict=True):
            if record.score is not None and sign * record.score < sign * best[record.sample_id]:
                self.store.put(record.sample_id, eps, image)

    def _record(
        self, sample: Sample, step: str, eps: float, prediction: str, *, seconds: float, error: str | None = None,
        loss: float | None = None, distance: float = 0.0, evaluations: int = 0,
    ) -> Record:  # fmt: skip
        score = None if error else self.setup.task.score(prediction, sample)
        return Record(
            sample.id, sample.group, step, eps, "" if error else prediction, score, loss, distance, evaluations, (),
            error, round(seconds, 4),
        )  # fmt: skip

    def _in_batches(self, rows: list[int], work: Callable[[list[int]], list[Record]], label: str) -> None:
        """Work through rows batch by batch, each recorded as it ends; halves the batch when memory runs out."""
        bar = tqdm(total=len(rows), desc=f"{self.config.encoder} {self.config.dataset} {label}",
                   disable=not self.progress, leave=False)  # fmt: skip
        with bar:
            while rows:
                batch = rows[: self.batch_size]
                try:
                    records = work(batch)
                except torch.OutOfMemoryError:
                    if self.batch_size == 1:
                        raise UsageError("out of memory at batch size 1; use a device with more memory") from None
                    self.batch_size = max(1, min(self.batch_size, len(batch)) // 2)
                    torch.cuda.empty_cache()
                    continue
                self.append(records)
                self.records += records
                self.done |= {record.key for record in records if record.error is None}
                rows = rows[len(batch) :]
                bar.update(len(batch))

    def failures(self) -> int:
        """Samples whose last word is an error."""
        latest = {record.key: record for record in self.records}
        return sum(record.error is not None for record in latest.values())

    def verdicts(self) -> list[dict[str, Any]]:
        """Sanity checks on the finished run, to be stored with it."""
        attacked = [r for r in self.records if r.step != CLEAN and r.error is None]
        unmoved = sum(r.distance_255 == 0 for r in attacked)
        checks = [{"name": "no_errors", "ok": not self.failures(), "detail": f"{self.failures()} samples failed"}]
        if self.gradient is not None:
            checks.append(asdict(self.gradient))
        if attacked:
            detail = f"{unmoved} of {len(attacked)} attacked images equal their clean image"
            checks.append({"name": "attack_moves_images", "ok": unmoved < len(attacked), "detail": detail})
        return checks


def _stream(seed: int, *parts: object) -> torch.Generator:
    """The random stream of one (seed, sample, step, radius)."""
    key = hashlib.sha256(repr((seed, *parts)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(key[:8], "big") >> 1)
