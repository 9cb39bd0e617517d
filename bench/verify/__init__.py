"""Does a run's evidence bear out its records? Recomputed from what the run saved, without any attack code.

An image is kept for each sample and radius at which an attack left the sample worse off than all before it. From the
images, the data and the models alone, this module computes again what the records claim: that each image is one, how
far it is from its clean image, what the model answers, and what that scores; the same for its 8-bit PNG, and for the
clean images. Every sample of the run is accounted for: what has no record, or one of an error, is named.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from bench import registry
from bench.config import RunConfig, request_of, resolve
from bench.errors import UsageError
from bench.models.victims.endpoint.pixels import pixel_digest
from bench.records import CLEAN, Record, RecordsError, Run, RunHeader
from bench.records.images import FOLDER, path_of, read_image, read_png, saved_paths
from bench.records.inferred import inferred
from bench.records.samples import read_samples
from bench.records.verification import Mismatch, Verification
from bench.records.worst import kept_records, worst_choices, worst_scores
from bench.running.load import Setup, prepare
from bench.running.scoring import Occasion, Said, said_of
from bench.trust.text import on_one_line
from tasks.base import Answer, Sample

BATCH = 64
ULP = 2.0**-23  # of a float32 pixel at 1.0: what rounding may add to a distance, a pixel
ABOUT_THE_RUN = ("dataset_fingerprint", "task_version", "metric", "n_samples")
BEST = "best"
# goals that no task decides on
TASKLESS = ("embedding", "patch-tokens", "pooled", "target-image", "target-text", "target-said", "brought")


def has_evidence(run: Run) -> bool:
    """Whether a run kept the images that bear out its records, or has no record that needs one."""
    return (run.directory / FOLDER).is_dir() or not kept_records(run.header, run.records)


def verify(
    run: Run,
    *,
    data_root: Path | None = None,
    device: str = "auto",
    arch: str | None = None,
    progress: bool = True,
) -> Verification:
    """Compute a run's worst answers and scores again and compare them with its records.

    Args:
        run: the run, with an ``adversarial`` folder in its directory.
        data_root: where the datasets' files lie now; where they lay then by default.
        device: where to compute.
        arch: open_clip architecture of an encoder given as a path; that of the run by default.
        progress: show a progress bar on stderr.

    Raises:
        UsageError: the run kept no images, its judge is a plugin's, or its data or models cannot be loaded.
    """
    if not has_evidence(run):
        raise UsageError(
            f"{run.directory} kept no adversarial images, so there is nothing to verify; make the run again with "
            "--save-adversarial"
        )
    if run.header.judge and not registry.is_built_in("bench.judges", run.header.judge.partition("?")[0]):
        raise UsageError(
            f"{run.directory}: its judge {run.header.judge!r} is a plugin's, which nobody asks because a file says so; "
            "give the run again with --judge words or text to have it verified"
        )
    changes = {"data_root": data_root, "device": device, "arch": arch}
    setup = prepare(models_of(run.header, **{name: value for name, value in changes.items() if value is not None}))
    evidence = _Evidence(run, setup, progress)
    if not (found := list(about_the_run(run, setup))):
        found = [*evidence.asked(), *evidence.clean(), *evidence.attacked(), *evidence.totals(), *evidence.strangers()]
        found += evidence.untaken() if run.header.status == "complete" else ()
    return evidence.summary(found)


def models_of(header: RunHeader, **changes: Any) -> RunConfig:
    """A finished run without its attack: what loads its data, encoder and model.

    Args:
        header: of the run.
        changes: options to ask for differently, such as where the data lie now.

    Raises:
        UsageError: the run's suite is not known here.
    """
    precision = header.precision if header.half_verdicts else "float32"  # other answers are all in float32
    none = dict.fromkeys(("images", "surrogate", "ensemble", "surrogate_vlm"))
    given = {**none, "attack": "none", "precision": precision}
    request = request_of(header, **given | changes)
    (config,) = resolve(request)
    return replace(config, samples=header.n_samples)


def about_the_run(run: Run, setup: Setup) -> Iterator[Mismatch]:
    """Where the data or the weights are not those of the run."""
    now = setup.header
    for name, digest in run.header.weights.items():
        if not name.startswith("surrogate") and now.weights.get(name) != digest:
            yield Mismatch(str(run.directory), "", 0.0, f"weights.{name}", digest, now.weights.get(name))
    for field in ABOUT_THE_RUN:
        before, after = getattr(run.header, field), getattr(now, field)
        if before != after:
            yield Mismatch(str(run.directory), "", 0.0, field, before, after)


class _Evidence:
    """Looks at the images of one run again, and remembers what came of it."""

    def __init__(self, run: Run, setup: Setup, progress: bool) -> None:
        self.run, self.setup, self.progress = run, setup, progress
        self.folder = run.directory / FOLDER
        self.rows = {sample.id: row for row, sample in enumerate(setup.samples)}
        self.kept = kept_records(run.header, run.records)
        self.recomputed: list[tuple[Record, Said]] = []  # records with what is said now
        self.pngs = self.originals = 0

    def asked(self) -> Iterator[Mismatch]:
        """The stored questions and expected answers, against those of the data."""
        samples = {sample.id: sample for sample in self.setup.samples}
        for one in read_samples(self.run.directory).values():
            sample = samples.get(one.id)
            now = None if sample is None else (sample.prompt, tuple(sample.references))
            if now != (one.prompt, one.references):
                yield Mismatch(str(self.run.directory), one.id, 0.0, "question", (one.prompt, one.references), now)

    def clean(self) -> Iterator[Mismatch]:
        """The answers to the clean images, and the saved clean images."""
        records = [record for record in self.run.records if record.step == CLEAN and record.error is None]
        for batch in self._batches(records, "clean"):
            known = [record for record in batch if record.sample_id in self.rows]
            yield from (self._mismatch(r, "sample", r.sample_id, None) for r in batch if r.sample_id not in self.rows)
            if (self.folder / "0").is_dir():
                yield from (mismatch for record in known for mismatch in self._original(record))
            yield from self._compare_all([(record, self._clean_image(record)) for record in known])

    def attacked(self) -> Iterator[Mismatch]:
        """The adversarial images themselves, and the answers to those that are images, exact and as PNG."""
        for batch in self._batches(list(self.kept.values()), "adversarial"):
            exact, rounded = [], []
            for record in batch:
                image, problems = self._image(record)
                yield from problems
                if image is None:
                    continue
                exact.append((record, image))
                if record.png_score is not None:
                    png, problems = self._png(record, image)
                    yield from problems
                    rounded += [(record, png)] if png is not None else []
            yield from self._compare_all(exact)
            for record, said in self._of_pngs(rounded):
                if said.score is None or not _same(said.score, record.png_score or 0.0):
                    yield self._mismatch(record, "png_score", record.png_score, said.score)

    def totals(self) -> Iterator[Mismatch]:
        """What each sample is left with at each radius: the worst over the clean image and all kept ones up to it."""
        header, records = self.run.header, self.run.records
        recomputed = [
            msgspec.structs.replace(record, score=said.score, draws=said.draws, screen=said.screen)
            for record, said in self.recomputed
        ]
        for radius in (0.0, *header.radii):
            now = worst_scores(header, recomputed, radius)
            for sample, score in worst_scores(header, records, radius).items():
                if sample in now and not _same(now[sample], score):
                    yield Mismatch(str(self.run.directory), sample, radius, "worst score", score, now[sample])

    def strangers(self) -> Iterator[Mismatch]:
        """Images that no record of a finished run accounts for; a run cut short may have saved one too many."""
        if self.run.header.status != "complete":
            return
        known = {path_of(self.folder, sample, radius) for sample, radius in self.kept}
        known |= {path_of(self.folder, record.sample_id, 0.0) for record in self.run.records if record.step == CLEAN}
        for radius, path in saved_paths(self.folder):
            if path not in known:
                yield Mismatch(str(self.run.directory), path.stem, radius, "image", None, str(path))

    def untaken(self) -> Iterator[Mismatch]:
        """Samples that a complete run has no record of, and robust ones that it did not take every attack step on."""
        taken = {record.key for record in self.run.records}
        for sample in self.setup.samples:
            if (sample.id, CLEAN, 0.0) not in taken:
                yield Mismatch(str(self.run.directory), sample.id, 0.0, "record", None, "a clean answer")
        for radius in self.run.header.radii:
            follows = inferred(self.run.header, self.run.records, radius)  # all steps were taken at a larger radius
            for sample_id in (sample for sample in self._robust(radius) if sample not in follows):
                steps = [name for name in self._steps_of(sample_id) if (sample_id, name, radius) not in taken]
                if steps:
                    yield Mismatch(str(self.run.directory), sample_id, radius, "record", None, ", ".join(steps))

    def _robust(self, radius: float) -> list[str]:
        """The samples that nothing which went well has broken at a radius."""
        sound = [record for record in self.run.records if record.error is None and record.sample_id in self.rows]
        left = worst_choices(self.run.header, sound, radius)
        samples, broken = self.setup.samples, self.setup.task.broken
        return [sample for sample, score in left.items() if not broken(score, samples[self.rows[sample]])]

    def _steps_of(self, sample_id: str) -> Iterator[str]:
        """The steps that are taken on a sample as long as it is robust."""
        sample, applies = self.setup.samples[self.rows[sample_id]], self.setup.task.applies
        for step in self.run.header.steps:
            if step.goal in TASKLESS or (step.goal != BEST and applies(step.goal, sample)):
                yield step.name

    def summary(self, found: Sequence[Mismatch]) -> Verification:
        """What was verified, and what was not."""
        header, records = self.run.header, self.run.records
        recorded = {record.sample_id for record in records}
        robust = {radius: set(self._robust(radius)) for radius in header.radii}
        failed = [record for record in records if not record.settled]
        errors = dict.fromkeys(r.sample_id for r in failed if r.step == CLEAN or r.sample_id in robust[r.radius])
        attacks = sum(record.step != CLEAN for record in records)
        asked = [record.step == CLEAN for record, _ in self.recomputed]
        return Verification(
            run=str(self.run.directory),
            samples=header.n_samples,
            clean=sum(asked),
            images=len(asked) - sum(asked),
            pngs=self.pngs,
            originals=self.originals,
            unkept=attacks - len(self.kept),
            errors=tuple(errors),
            missing=tuple(sample.id for sample in self.setup.samples if sample.id not in recorded),
            surrogate=header.surrogate is not None,
            recorded=sum(record.call is not None for record, _ in self.recomputed),
            mismatches=tuple(found),
        )

    def _clean_image(self, record: Record) -> Tensor:
        return self.setup.images[[self.rows[record.sample_id]]][0]

    def _original(self, record: Record) -> list[Mismatch]:
        """The saved clean image of a sample, against that of the data."""
        saved, problems = self._saved(record, 0.0)
        if saved is None:
            return problems
        self.originals += 1
        change = float((saved - self._clean_image(record)).abs().max())
        if not change <= ULP:
            problems.append(self._mismatch(record, "clean image", "that of the data", f"up to {change:g} away"))
        return problems

    def _image(self, record: Record) -> tuple[Tensor | None, list[Mismatch]]:
        """A record's image, if it can be shown to the model, and what is wrong with it."""
        if record.sample_id not in self.rows:
            return None, [self._mismatch(record, "sample", record.sample_id, None)]
        image, problems = self._saved(record, record.radius)
        if image is None:
            return None, problems
        low, high = float(image.min()), float(image.max())
        if not (low >= 0 and high <= 1 and bool(image.isfinite().all())):
            return None, [*problems, self._mismatch(record, "range", "[0, 1]", f"[{low:.9g}, {high:.9g}]")]
        return image, problems + self._distances(record, image)

    def _saved(self, record: Record, radius: float) -> tuple[Tensor | None, list[Mismatch]]:
        """What lies in the place of a sample's image, if it has the shape of one, and what is wrong with it."""
        try:
            saved = read_image(path_of(self.folder, record.sample_id, radius))
        except RecordsError as error:
            return None, [self._mismatch(record, "image", "a safetensors file", f"unreadable: {error}")]
        intact = saved.seal in (None, saved.digest)
        problems = [] if intact else [self._mismatch(record, "pixels", f"sha256 {saved.seal}", saved.digest)]
        clean = self._clean_image(record)
        wanted, got = (tuple(clean.shape), "float32"), (saved.pixels.shape, saved.pixels.dtype.name)
        if wanted != got:
            return None, [*problems, self._mismatch(record, "image", wanted, got)]
        return torch.from_numpy(saved.pixels).to(clean.device), problems

    def _png(self, record: Record, image: Tensor) -> tuple[Tensor | None, list[Mismatch]]:
        """The PNG beside an image, as the model is shown it, and whether it is that image in 8 bits."""
        try:
            pixels = read_png(path_of(self.folder, record.sample_id, record.radius).with_suffix(".png"))
        except RecordsError as error:
            return None, [self._mismatch(record, "png", "an 8-bit PNG", f"unreadable: {error}")]
        self.pngs += 1
        wanted = (image.cpu().numpy() * 255).round().astype(np.uint8)
        if not np.array_equal(pixels, wanted):
            return None, [self._mismatch(record, "png", "the saved image in 8 bits", "another image")]
        return torch.from_numpy(pixels.copy()).to(image.device).float() / 255, []

    def _distances(self, record: Record, image: Tensor) -> list[Mismatch]:
        """Against what is recorded, and against the radius; rounding is forgiven by one ulp a pixel."""
        difference = image.float() - self._clean_image(record).float()
        if self.run.header.norm == "linf":
            unit, rounding, distance = 255.0, ULP, float(difference.abs().max())
        else:
            unit, rounding = 1.0, ULP * math.sqrt(difference.numel())
            distance = float(torch.linalg.vector_norm(difference))
        found = []
        if abs(distance * unit - record.distance) > rounding * unit:
            found.append(self._mismatch(record, "distance", record.distance, distance * unit))
        if distance > record.radius / unit + rounding:
            found.append(self._mismatch(record, "radius", record.radius, distance * unit))
        return found

    def _batches(self, records: Sequence[Record], label: str) -> Iterator[Sequence[Record]]:
        title = on_one_line(f"{self.run.header.encoder} {self.run.header.dataset} {label}")
        with tqdm(total=len(records), desc=title, disable=None if self.progress else True, leave=False) as bar:
            for first in range(0, len(records), BATCH):
                yield records[first : first + BATCH]
                bar.update(len(records[first : first + BATCH]))

    def _answers(self, shown: Sequence[tuple[Record, Tensor]]) -> Iterator[tuple[Record, Said]]:
        """What the model says now; an endpoint is not asked again, for its answers are what they were."""
        for record, _ in shown:
            if record.call is not None:
                sample = self.setup.samples[self.rows[record.sample_id]]
                yield record, Said(Answer(record.prediction), self.setup.task.score(record.prediction, sample))
        for records, images in of_one_size([pair for pair in shown if pair[0].call is None]):
            yield from zip(records, self._ask(records, images), strict=True)

    def _of_pngs(self, shown: Sequence[tuple[Record, Tensor]]) -> Iterator[tuple[Record, Said]]:
        """What is said of PNGs: by the model as it is deployed, where that takes them by another path."""
        if self.setup.deployed is None:
            yield from self._answers(shown)
            return
        for records, images in of_one_size(shown):
            samples = [self.setup.samples[self.rows[record.sample_id]] for record in records]
            occasions = [Occasion(self.run.header.seed, record.step, record.radius) for record in records]
            said = said_of(self.setup.task, self.setup.deployed, images, samples, occasions)
            yield from zip(records, said, strict=True)

    def _sent(self, shown: Sequence[tuple[Record, Tensor]]) -> Iterator[Mismatch]:
        """What was sent to an endpoint, against the image."""
        for record, image in shown:
            if record.call is not None and (now := pixel_digest(image)) != record.call.pixels:
                yield self._mismatch(record, "pixels sent", f"sha256 {record.call.pixels}", now)

    def _compare_all(self, shown: Sequence[tuple[Record, Tensor]]) -> Iterator[Mismatch]:
        yield from self._sent(shown)
        for record, said in self._answers(shown):
            yield from self._compare(record, said)

    def _ask(self, records: Sequence[Record], images: Tensor) -> list[Said]:
        """The answers of the model whose word counted: in half precision only where the run's protocol trusts it."""
        samples: list[Sample] = [self.setup.samples[self.rows[record.sample_id]] for record in records]
        occasions = [Occasion(self.run.header.seed, record.step, record.radius) for record in records]
        said: dict[int, Said] = {}
        halves = [self.setup.half is not None and record.step in self.run.header.half_steps for record in records]
        for half in set(halves):
            victim = self.setup.half.victim if half and self.setup.half is not None else self.setup.victim
            rows = [row for row, is_half in enumerate(halves) if is_half == half]
            some, when = [samples[row] for row in rows], [occasions[row] for row in rows]
            said |= zip(rows, said_of(self.setup.task, victim, images[rows], some, when), strict=True)
        return [said[row] for row in range(len(records))]

    def _compare(self, record: Record, said: Said) -> Iterator[Mismatch]:
        """What is said with what is recorded."""
        if said.score is None:
            yield self._mismatch(record, "error", None, said.answer.error)
            return
        self.recomputed.append((record, said))
        if said.answer.text != record.prediction:
            yield self._mismatch(record, "prediction", record.prediction, said.answer.text)
        if record.score is None or not _same(said.score, record.score):
            yield self._mismatch(record, "score", record.score, said.score)
        if (said.draws, said.screen) != (record.draws, record.screen):
            yield self._mismatch(record, "draws", (record.draws, record.screen), (said.draws, said.screen))

    def _mismatch(self, record: Record, field: str, recorded: Any, recomputed: Any) -> Mismatch:
        return Mismatch(str(self.run.directory), record.sample_id, record.radius, field, recorded, recomputed)


def of_one_size(shown: Sequence[tuple[Record, Tensor]]) -> Iterator[tuple[list[Record], Tensor]]:
    """Records with their images (b, 3, H, W), those of one size together."""
    by_size: dict[tuple[int, ...], list[tuple[Record, Tensor]]] = {}
    for record, image in shown:
        by_size.setdefault(tuple(image.shape), []).append((record, image))
    for group in by_size.values():
        yield [record for record, _ in group], torch.stack([image for _, image in group])


def _same(a: float, b: float) -> bool:
    """Equal but for the order in which a machine adds."""
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)
