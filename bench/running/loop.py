"""The loop: samples from a task, through an attack, past a victim, into an append-only record.

Every adversarial image is certified in float32 before the victim sees it; every random start is drawn from (seed,
sample, step, radius), so results depend on neither batch size nor order nor resume.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import msgspec

from attacks.presets import TASKLESS, AttackStep
from attacks.threat import Norm, ThreatModel
from bench.batch_size import TOO_LARGE, BatchSize, within_memory
from bench.config import RunConfig
from bench.errors import UsageError
from bench.models.defences.chain import Defended
from bench.progress import Display, Silent
from bench.records import CLEAN, Record, RunStore, open_run, read_records
from bench.records.images import FOLDER
from bench.records.inferred import settling_radius
from bench.records.samples import Asked, write_samples
from bench.records.worst import Counts, Direction, WorstSoFar, counts_of, eps_label, is_worse, up_to
from bench.running.attack_batch import AttackedImage, Attacker
from bench.running.certify import AttackBatch, Conditions
from bench.running.ending import checks_of, failures
from bench.running.endpoints import ask_again
from bench.running.history import History, Tally
from bench.running.images import ImageStore
from bench.running.load import Setup, prepare
from bench.running.plugins import blaming_plugins
from bench.running.presenter import EightBit, Presenter
from bench.running.radii import FIRST, chosen_order
from bench.running.sanity_checks import BATCH_CHECK
from bench.running.scoring import Occasion, Said, record_of
from bench.running.units import threat_model
from bench.running.volley import Volley
from bench.trust.places import no_links
from bench.trust.text import on_one_line
from tasks.base import Sample
from tasks.protocol import ADAPTIVE, ASCENDING, DESCENDING, PROTOCOLS


def execute(config: RunConfig, *, display: Display | None = None) -> Path:
    """Carry out one run, or one shard of it, resuming what is recorded already; returns its directory.

    Raises:
        UsageError: something that was asked for cannot be loaded, or a folder in the output folder is a link.
        RecordsError: the directory holds another run, is in use, or cannot be written.
    """
    with blaming_plugins():
        return carry_out(config, prepare(config), display=display)


def carry_out(config: RunConfig, setup: Setup, *, display: Display | None = None) -> Path:
    """Carry out a run on what is loaded already; errors as of `execute`."""
    with open_run(no_links(config.folder, config.output), setup.header, force=config.force) as run:
        asked = (Asked(s.id, s.prompt, tuple(s.references), s.categories, s.captions) for s in setup.samples)
        write_samples(run.directory, asked)
        recorded = read_records(run.directory)
        if config.save_adversarial:
            _refuse_lost_images(run.directory, recorded)
        runner = _Runner(config, setup, run, recorded, display or Silent())
        for rows in runner.sessions():
            runner.take(rows)
        failed = failures(runner.history, setup.task)
        run.finish("failed" if failed else "complete", runner.checks())
    return run.directory


def _refuse_lost_images(directory: Path, records: Sequence[Record]) -> None:
    """Images are asked for, but a part of this run was carried out without keeping them."""
    kept = (directory / FOLDER / "0").is_dir()  # clean images are kept first
    attacked = [r for r in records if r.step != CLEAN and r.score is not None]
    gone = sum(r.png_score is None or not kept for r in attacked)
    if gone:
        raise UsageError(
            f"{directory} holds {gone} attacks that were carried out without --save-adversarial: their images "
            "are gone. Choose another --output, or delete the run"
        )


def best_goal(
    steps: Sequence[AttackStep], records: Sequence[Record], eps: float, worst: Direction, counts: Counts = up_to
) -> str:
    """The goal of the first step to which a sample owes its worst score; the first goal if none did harm.

    As in the released code of arXiv 2402.12336: only a strictly worse result counts, ties keep the earlier one.

    Args:
        steps: of the attack.
        records: of the sample, in order, its clean one among them.
        eps: radius as recorded.
        worst: where the attacker pushes the score.
        counts: which radii count.
    """
    goals = {step.name: step.goal for step in steps if step.goal != "best"}
    so_far = WorstSoFar(worst, counts)
    for record in records:
        if record.step == CLEAN or record.step in goals:
            so_far.add(record)
    owed = so_far.at(records[0].sample_id, eps)
    return goals.get(owed.step, steps[0].goal) if owed else steps[0].goal


class _Runner:
    """Carries out one run on what is loaded."""

    def __init__(
        self, config: RunConfig, setup: Setup, run: RunStore, recorded: Sequence[Record], display: Display
    ) -> None:
        self.config, self.setup, self.run = config, setup, run
        self.history = History(setup.header, recorded)
        self.display = display
        self.samples = {sample.id: sample for sample in setup.samples}
        self._tallies: dict[float, Tally] = {}
        self.rows = range(len(setup.samples)) if config.shard is None else config.shard.of(len(setup.samples))
        self.batches = BatchSize(config.batch_size, setup.images.device, max(map(max, setup.images.sizes)))
        self.steps: Sequence[AttackStep] = config.steps
        keep = config.save_adversarial or any(step.start == "best" for step in self.steps)
        self.store = ImageStore(run.directory / FOLDER, counts_of(setup.header)) if keep else None
        if self.store is not None:
            self.store.settle(self.history.done)  # what an earlier process recorded but did not live to put in place
        conditions = Conditions(
            seed=config.seed,
            first_checkpoint=PROTOCOLS[config.protocol].first_checkpoint,
            # an image for another model is made as strong as the steps allow
            stop_when_fooled=config.surrogate is None,
            store=self.store,
        )
        kind = Attacker if setup.session is None else EightBit
        self.attacker = (
            kind(config, setup, conditions)
            if setup.brought is None
            else Presenter(config, setup, conditions, setup.brought)
        )
        if BATCH_CHECK in {check["name"] for check in run.header.checks}:
            self.attacker.checks = ()  # an earlier process has looked at its first batch, and noted what it saw

    def sessions(self) -> list[Sequence[int]]:
        """Rows that are asked about clean and attacked before others are: all, or few where a victim may change."""
        size = self.setup.session or max(1, len(self.rows))
        return [self.rows[first : first + size] for first in range(0, len(self.rows), size)]

    def take(self, rows: Sequence[int]) -> None:
        """Ask samples unattacked, then attacked."""
        self._session = rows
        self._clean(rows)
        self._attack(rows)

    def _clean(self, rows: Sequence[int]) -> None:
        """Ask samples unattacked."""
        rows = [i for i in rows if (self.setup.samples[i].id, CLEAN, 0.0) not in self.history.done]
        rows = self._without_unreadable(rows)
        self._give_up(self._in_batches(rows, self._ask, CLEAN, 0.0), CLEAN, 0.0)

    def _ask(self, batch: list[int]) -> list[Record]:
        began = time.monotonic()
        samples, images = [self.setup.samples[i] for i in batch], self.setup.images[batch]
        occasion = Occasion(self.config.seed, CLEAN, 0.0)
        answers = self.attacker.clean_answers(samples, images)
        seconds = (time.monotonic() - began) / len(batch)
        records = [
            msgspec.structs.replace(record_of(sample, occasion, said, seconds=seconds), png_score=png_score)
            for sample, (said, png_score) in zip(samples, answers, strict=True)
        ]
        records = ask_again(self.setup.repeats, self.setup.task, images, samples, records)
        if self.store is not None and self.config.save_adversarial:
            for record, image in zip(records, images, strict=True):
                if record.score is not None:
                    self.store.put(record.sample_id, CLEAN, 0.0, image, png=True)
        return records

    def _without_unreadable(self, rows: list[int]) -> list[int]:
        """Record why some samples cannot be asked; the rows of the others."""
        why, samples = self.setup.unreadable, self.setup.samples
        occasion = Occasion(self.config.seed, CLEAN, 0.0)
        errors = [(samples[i], Said.failed(why[samples[i].id])) for i in rows if samples[i].id in why]
        self._enter([record_of(sample, occasion, said, seconds=0.0) for sample, said in errors])
        return [i for i in rows if samples[i].id not in why]

    def _attack(self, rows: Sequence[int]) -> None:
        """Take the attack's steps at each radius on those samples that are still robust there.

        An image that breaks a sample lies in every larger ball too, so a broken sample is not attacked again, unless
        the protocol counts each radius by itself. With the largest radius first, a sample that is left as it was is not
        attacked at smaller ones: see `bench.records.inferred`.
        """
        for eps in self._radii() if self.steps else ():
            self._attack_at(eps, rows)

    def _radii(self) -> Sequence[float]:
        """The radii in the order in which they are attacked."""
        order = self.config.radii_order
        if order == ADAPTIVE:
            order = self._chosen_order()
        return self.config.eps[::-1] if order == DESCENDING else self.config.eps

    def _chosen_order(self) -> str:
        """What the first samples of the run tell, attacked at the largest radius; once chosen, it stays."""
        first, radius = range(len(self.setup.samples))[:FIRST], max(self.config.eps)
        self._attack_at(radius, [row for row in first if row in self.rows])
        if not self.run.header.chosen_order:
            self.run.choose_order(self.config.chosen_order or self._choose(first, radius))
        return self.run.header.chosen_order

    def _choose(self, first: Sequence[int], radius: float) -> str:
        """What the first samples of the run tell, attacked at the largest radius; see `bench.running.radii`."""
        samples = [self.setup.samples[row] for row in first]
        records = [record for sample in samples for record in self.history.of(sample.id)]
        records += self._attacked_elsewhere([row for row in first if row not in self.rows], radius)
        return chosen_order(History(self.setup.header, records), samples, radius, self.setup.task)

    def _attacked_elsewhere(self, rows: Sequence[int], eps: float) -> list[Record]:
        """The records of samples that belong to other shards, attacked as there; nothing of it is kept."""
        if not rows:
            return []
        config = replace(self.config, shard=None, save_adversarial=False)
        with TemporaryDirectory() as folder, open_run(Path(folder) / "first", self.setup.header) as run:
            other = _Runner(config, self.setup, run, (), self.display)
            other.attacker.checks = ()
            other._session = rows
            other._clean(rows)
            other._attack_at(eps, rows)
            return other.history.records

    def _attack_at(self, eps: float, rows: Sequence[int]) -> None:
        threat = threat_model(cast(Norm, self.config.norm), eps)
        for _, volley in groupby(enumerate(self.steps), lambda pair: pair[1].volley or pair[0]):
            for steps, due in self._left_to_do([step for _, step in volley], eps, rows).items():
                self._take(steps, due, eps, threat)

    def _left_to_do(
        self, volley: Sequence[AttackStep], eps: float, rows: Sequence[int]
    ) -> dict[tuple[AttackStep, ...], list[int]]:
        """Rows by the steps they are to take; the goal "best" becomes that of the worst result so far."""
        scores = self.history.sound_choices(eps, self._ids(rows), steps=self._counting_steps(volley[0]))
        by_steps: dict[tuple[AttackStep, ...], list[int]] = {}
        for row in rows:
            sample = self.setup.samples[row]
            if sample.id not in scores or self._is_settled(scores[sample.id], sample) or self._is_inferred(sample, eps):
                continue
            settled = [replace(step, goal=self._goal(step, sample, eps)) for step in volley]
            steps = tuple(step for step in settled if self._is_due(step, sample, eps))
            if steps:
                by_steps.setdefault(steps, []).append(row)
        return by_steps

    def _is_settled(self, score: float, sample: Sample) -> bool:
        """Whether nothing is left to attack; an image that was brought is shown whatever the clean answer was."""
        return self.setup.brought is None and self.setup.task.broken(score, sample)

    def _is_inferred(self, sample: Sample, eps: float) -> bool:
        """Whether all steps were taken on a sample at a larger radius, and left it as it was."""
        if self.config.radii_order in (None, ASCENDING):
            return False
        larger = settling_radius(self.history.of(sample.id), eps)
        return larger is not None and not any(
            self._is_due(replace(step, goal=self._goal(step, sample, larger)), sample, larger) for step in self.steps
        )

    def _counting_steps(self, step: AttackStep) -> frozenset[str] | None:
        """The steps after which a broken sample is spared a step; None for all of them."""
        if not step.independent:
            return None
        return frozenset(other.name for other in self.steps if other.through == step.through)

    def _is_due(self, step: AttackStep, sample: Sample, eps: float) -> bool:
        """Whether a step with a settled goal makes sense for a sample and has not been taken."""
        fits = step.goal in TASKLESS or self.setup.task.applies(step.goal, sample)
        return fits and (sample.id, step.name, eps) not in self.history.done

    def _goal(self, step: AttackStep, sample: Sample, eps: float) -> str:
        if step.goal != "best":
            return step.goal
        header = self.setup.header
        return best_goal(self.steps, self.history.of(sample.id), eps, header.worst, counts_of(header))

    def _take(self, steps: tuple[AttackStep, ...], rows: list[int], eps: float, threat: ThreatModel) -> None:
        """Take one step, or the steps of a volley side by side; one by one where memory has no room for them."""

        def attack(rows: list[int]) -> list[Record]:
            volley = Volley(steps, [self.setup.samples[row] for row in rows])
            targets = None if self.setup.targets is None else self.setup.targets[rows]
            batch = AttackBatch(volley, self.setup.images[rows], eps, threat, targets)
            unseen = self.attacker.checks is None
            kept = self.attacker.to_keep(batch, self.attacker.attack(batch))
            if unseen and self.attacker.checks:
                self.run.note([asdict(check) for check in self.attacker.checks])
            self._keep_worst(kept, eps)
            return [one.record for one in kept]

        name = Volley(steps, ()).name
        left = self._in_batches(rows, attack, f"{name} {eps_label(eps, threat.norm)}", eps, width=len(steps))
        if len(steps) == 1:
            self._give_up(left, name, eps)
            return
        for step in steps if left else ():
            due = {row for found in self._left_to_do([step], eps, left).values() for row in found}
            self._take((step,), [row for row in left if row in due], eps, threat)

    def _keep_worst(self, attacked: Sequence[AttackedImage], eps: float) -> None:
        """Let the images that are worse than all before them wait until their records are written."""
        if self.store is None:
            return
        best = self.history.sound_choices(eps, dict.fromkeys(one.record.sample_id for one in attacked))
        for one in attacked:
            sample, score = one.record.sample_id, one.record.choice
            if score is not None and is_worse(self.setup.header.worst, score, best[sample]):
                best[sample] = score
                png = one.record.png_score is not None
                self.store.put(sample, one.record.step, eps, one.image, png=png)

    def _in_batches(
        self, rows: list[int], work: Callable[[list[int]], list[Record]], label: str, eps: float, width: int = 1
    ) -> list[int]:
        """Work through rows batch by batch, each recorded as it ends; `width` images a row are in memory at once.

        Returns the rows that do not fit into memory even alone.
        """
        too_large, rows, done = [], self.setup.images.by_size(rows), 0
        part = "" if self.config.shard is None else f" {self.config.shard}"
        self.display.begin(on_one_line(f"{self.config.encoder} {self.config.dataset}{part} {label}"), len(rows))
        tally = self._tally(eps)
        while done < len(rows):
            batch = self.setup.images.alike(rows[done : done + max(1, self.batches.size // width)])
            records = within_memory(work, batch)
            if records is None:
                self.batches.out_of_memory(len(batch) * width)
                if len(batch) > 1:
                    continue
                too_large += batch
            else:
                self.batches.done(len(batch) * width)
                self._enter(records)
                tally.update(self._ids(batch))
            done += len(batch)
            self.display.advance(len(batch), tally.words(self.setup.task.metric))
        self.display.end()
        return too_large

    def _tally(self, eps: float) -> Tally:
        """How samples stand at a radius; those of the session may have been attacked at a smaller one since."""
        rows, task = self._session, self.setup.task
        if eps not in self._tallies:
            self._tallies[eps] = Tally(self.history, eps, lambda key, score: task.broken(score, self.samples[key]))
            rows = self.rows  # what an earlier process recorded counts, too
        self._tallies[eps].update(self._ids(rows))
        return self._tallies[eps]

    def _ids(self, rows: Sequence[int]) -> list[str]:
        return [self.setup.samples[row].id for row in rows]

    def _give_up(self, rows: list[int], step: str, eps: float) -> None:
        """Record that there is not enough memory for some samples."""
        samples = [self.setup.samples[row] for row in rows]
        occasion, said = Occasion(self.config.seed, step, eps), Said.failed(TOO_LARGE)
        self._enter([record_of(sample, occasion, said, seconds=0.0) for sample in samples])

    def _enter(self, records: list[Record]) -> None:
        """Write records, then put their images in place."""
        self.run.append(records)
        if self.store is not None:
            self.store.settle(record.key for record in records)
        self.history.add(records)

    def checks(self) -> list[dict[str, Any]]:
        """Sanity checks on the finished run, to be stored with it; of a shard, those that need no other."""
        task = self.setup.task
        victim = self.setup.victim.undefended if isinstance(self.setup.victim, Defended) else self.setup.victim
        of_task = task.checks(victim) if hasattr(task, "checks") else []
        first = [*of_task, *(self.attacker.checks or ())]
        if self.config.shard is not None:
            return [asdict(check) for check in first]
        return checks_of(self.config, task, self.history, first)
