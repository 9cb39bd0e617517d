"""Does a run's evidence bear out its records? Recomputed from the saved adversarial images, without any attack code.

An image is kept for each sample and radius at which an attack left the sample worse off than all before it. From the
images, the data and the models alone, this module computes again what the records claim: how far each image is from
its clean image, that it is an image, what the model answers, and what that scores.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor
from tqdm import tqdm

from bench.config import RunConfig, request_of, resolve
from bench.errors import UsageError
from bench.records import CLEAN, Record, RecordsError, Run, RunHeader
from bench.records.images import FOLDER, path_of, read_image, saved_paths
from bench.records.worst import kept_records, worst_scores
from bench.running.load import Setup, prepare
from bench.trust.text import on_one_line
from tasks.base import Answer, Sample

BATCH = 64
ULP = 2.0**-23  # of a float32 pixel at 1.0: what rounding may add to a distance, a pixel
ABOUT_THE_RUN = ("dataset_fingerprint", "task_version", "metric", "n_samples")


@dataclass(frozen=True)
class Mismatch:
    """One thing that is not as recorded.

    Attributes:
        run: the run's directory.
        sample_id: of the sample; "" for what concerns the whole run.
        radius: radius as in `RunHeader.radius`; 0 for clean.
        field: "distance", "range", "pixels", "prediction", "score", "image", "weights.encoder", ...
    """

    run: str
    sample_id: str
    radius: float
    field: str
    recorded: Any
    recomputed: Any

    def __str__(self) -> str:
        place = f"sample {self.sample_id} at {self.radius:g}: " if self.sample_id else ""
        return f"{self.run}: {place}{self.field} is {self.recorded!r} in the records and {self.recomputed!r} recomputed"


@dataclass(frozen=True)
class Verification:
    """What was verified of one run.

    Attributes:
        images: adversarial images that were judged again.
        clean: clean images that were judged again.
        unkept: attacks whose image is not kept, since they made nothing worse or a later one did: not verified.
    """

    run: str
    images: int
    clean: int
    unkept: int
    mismatches: tuple[Mismatch, ...]


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
        UsageError: the run kept no images, or its data or models cannot be loaded.
    """
    kept = kept_records(run.header, run.records)
    folder = run.directory / FOLDER
    if kept and not folder.is_dir():
        raise UsageError(
            f"{run.directory} kept no adversarial images, so there is nothing to verify; make the run again with "
            "--save-adversarial"
        )
    changes = {"data_root": data_root, "device": device, "arch": arch}
    setup = prepare(models_of(run.header, **{name: value for name, value in changes.items() if value is not None}))
    attacks = sum(record.step != CLEAN for record in run.records)
    clean = [record for record in run.records if record.step == CLEAN and record.error is None]
    if found := list(_about_the_run(run, setup)):
        return Verification(str(run.directory), 0, 0, attacks, tuple(found))
    judge = _Judge(run, setup, folder, progress)
    found = [*judge.clean(clean), *judge.attacked(kept), *_strangers(run, folder, kept)]
    found += judge.totals()
    return Verification(str(run.directory), len(kept), len(clean), attacks - len(kept), tuple(found))


def models_of(header: RunHeader, **changes: Any) -> RunConfig:
    """A finished run without its attack: what loads its data, encoder and model.

    Args:
        header: of the run.
        changes: options to ask for differently, such as where the data lie now.

    Raises:
        UsageError: the run's suite is not known here.
    """
    precision = header.precision if header.half_verdicts else "float32"  # other answers are all in float32
    request = request_of(header, attack="none", surrogate=None, precision=precision, **changes)
    (config,) = resolve(request)
    return replace(config, samples=header.n_samples)


def _about_the_run(run: Run, setup: Setup) -> Iterator[Mismatch]:
    """Where the data or the weights are not those of the run."""
    now = setup.header
    for name, digest in run.header.weights.items():
        if name != "surrogate" and now.weights.get(name) != digest:
            yield Mismatch(str(run.directory), "", 0.0, f"weights.{name}", digest, now.weights.get(name))
    for field in ABOUT_THE_RUN:
        before, after = getattr(run.header, field), getattr(now, field)
        if before != after:
            yield Mismatch(str(run.directory), "", 0.0, field, before, after)


def _strangers(run: Run, folder: Path, kept: Mapping[tuple[str, float], Record]) -> Iterator[Mismatch]:
    """Images that no record of a finished run accounts for; a run cut short may have saved one too many."""
    if run.header.status != "complete":
        return
    known = {path_of(folder, sample, radius) for sample, radius in kept}
    for radius, path in saved_paths(folder):
        if radius and path not in known:
            yield Mismatch(str(run.directory), path.stem, radius, "image", None, str(path))


class _Judge:
    """Judges images of one run again, and remembers what each sample is left with."""

    def __init__(self, run: Run, setup: Setup, folder: Path, progress: bool) -> None:
        self.run, self.setup, self.folder, self.progress = run, setup, folder, progress
        self.rows = {sample.id: row for row, sample in enumerate(setup.samples)}
        self.judged: list[tuple[Record, float]] = []  # what was recomputed

    def clean(self, records: Sequence[Record]) -> list[Mismatch]:
        """The answers to the clean images."""
        known = [record for record in records if record.sample_id in self.rows]
        found = [self._mismatch(r, "sample", r.sample_id, None) for r in records if r.sample_id not in self.rows]
        return found + self._answers(known, [self._clean_image(record) for record in known], "clean")

    def attacked(self, kept: Mapping[tuple[str, float], Record]) -> list[Mismatch]:
        """The images themselves, and the answers to those that are images."""
        found, sound = [], []
        for record in kept.values():
            image, problems = self._image(record)
            found += problems
            if image is not None:
                sound.append((record, image))
        answers = self._answers([record for record, _ in sound], [image for _, image in sound], "adversarial")
        return found + answers

    def totals(self) -> Iterator[Mismatch]:
        """What each sample is left with at each radius: the worst over the clean image and all kept ones up to it."""
        header, records = self.run.header, self.run.records
        judged = [msgspec.structs.replace(record, score=score) for record, score in self.judged]
        for eps in (0.0, *header.radii):
            now = worst_scores(header, judged, eps)
            for sample, score in worst_scores(header, records, eps).items():
                if sample in now and not _same(now[sample], score):
                    yield Mismatch(str(self.run.directory), sample, eps, "worst score", score, now[sample])

    def _clean_image(self, record: Record) -> Tensor:
        return self.setup.images[[self.rows[record.sample_id]]][0]

    def _image(self, record: Record) -> tuple[Tensor | None, list[Mismatch]]:
        """A record's image, if it can be shown to the model, and what is wrong with it."""
        path = path_of(self.folder, record.sample_id, record.radius)
        if record.sample_id not in self.rows:
            return None, [self._mismatch(record, "sample", record.sample_id, None)]
        if not path.exists():
            return None, [self._mismatch(record, "image", str(path), None)]
        try:
            saved = read_image(path)
        except RecordsError as error:
            return None, [self._mismatch(record, "image", "a safetensors file", f"unreadable: {error}")]
        intact = saved.seal in (None, saved.digest)
        damage = [] if intact else [self._mismatch(record, "pixels", f"sha256 {saved.seal}", saved.digest)]
        clean = self._clean_image(record)
        wanted, got = (tuple(clean.shape), "float32"), (saved.pixels.shape, saved.pixels.dtype.name)
        if wanted != got:
            return None, [self._mismatch(record, "image", wanted, got)]
        image = torch.from_numpy(saved.pixels).to(clean.device)
        low, high = float(image.min()), float(image.max())
        if not (low >= 0 and high <= 1 and bool(image.isfinite().all())):
            return None, [*damage, self._mismatch(record, "range", "[0, 1]", f"[{low:.9g}, {high:.9g}]")]
        return image, damage + self._distances(record, image, clean)

    def _distances(self, record: Record, image: Tensor, clean: Tensor) -> list[Mismatch]:
        """Against what is recorded, and against the radius; rounding is forgiven by one ulp a pixel."""
        difference = image.float() - clean.float()
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

    def _answers(self, records: Sequence[Record], images: Sequence[Tensor], label: str) -> list[Mismatch]:
        found: list[Mismatch] = []
        bar = tqdm(
            total=len(records),
            desc=on_one_line(f"{self.run.header.encoder} {self.run.header.dataset} {label}"),
            disable=None if self.progress else True,
            leave=False,
        )
        with bar:
            for first in range(0, len(records), BATCH):
                batch = records[first : first + BATCH]
                samples: list[Sample] = [self.setup.samples[self.rows[record.sample_id]] for record in batch]
                said = self._ask(batch, torch.stack(list(images[first : first + BATCH])), samples)
                for record, sample, answer in zip(batch, samples, said, strict=True):
                    found += self._judge(record, sample, answer)
                bar.update(len(batch))
        return found

    def _ask(self, records: Sequence[Record], images: Tensor, samples: Sequence[Sample]) -> list[Answer]:
        """The answers of the model whose word counted: in half precision only where the run's protocol trusts it."""
        said = [Answer("")] * len(records)
        halves = [self.setup.half is not None and record.step in self.run.header.half_steps for record in records]
        for half in set(halves):
            victim = self.setup.half.victim if half and self.setup.half is not None else self.setup.victim
            rows = [row for row, is_half in enumerate(halves) if is_half == half]
            for row, answer in zip(rows, victim.predict(images[rows], [samples[row] for row in rows]), strict=True):
                said[row] = answer
        return said

    def _judge(self, record: Record, sample: Sample, answer: Answer) -> Iterator[Mismatch]:
        if answer.error is not None:
            yield self._mismatch(record, "error", None, answer.error)
            return
        score = self.setup.task.score(answer.text, sample)
        self.judged.append((record, score))
        if answer.text != record.prediction:
            yield self._mismatch(record, "prediction", record.prediction, answer.text)
        if record.score is None or not _same(score, record.score):
            yield self._mismatch(record, "score", record.score, score)

    def _mismatch(self, record: Record, field: str, recorded: Any, recomputed: Any) -> Mismatch:
        return Mismatch(str(self.run.directory), record.sample_id, record.radius, field, recorded, recomputed)


def _same(a: float, b: float) -> bool:
    """Equal but for the order in which a machine adds."""
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)
