"""Packing finished runs into an entry, and what of a run's folder is its evidence."""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from bench.analysis.cells import measured, undefined
from bench.board.entry import IMAGES, RECORDS, VERSION, Card, Claim, Entry, Score
from bench.errors import UsageError
from bench.records import Run, RunHeader
from bench.records.files import read_inside
from bench.records.images import FOLDER, saved_paths
from bench.records.reading import ARCHIVED
from bench.records.worst import groups_at, scores_at


def pack(runs: Sequence[Run], card: Card, beside: Path) -> Entry:
    """An entry of whole runs of one encoder.

    Args:
        runs: Finished ones; with their adversarial images where the board is to verify them.
        card: What a reader should know of the encoder.
        beside: The folder in which the entry will lie: evidence is named relative to it.

    Raises:
        UsageError: A run is partial or has no number, or the runs are of several encoders.
    """
    encoders = sorted({run.header.encoder for run in runs})
    if len(encoders) != 1:
        raise UsageError(f"an entry is of one encoder, and these runs are of {', '.join(encoders) or 'none'}")
    for run in runs:
        if run.header.partial:
            raise UsageError(f"{run.directory} is partial ({run.header.partial}); only whole runs enter the board")
        if reason := undefined(run):
            raise UsageError(reason)
    card = (
        card if card.title else Card(**{f: getattr(card, f) for f in card.__struct_fields__} | {"title": encoders[0]})
    )
    return Entry(VERSION, card, tuple(claim_of(run, beside) for run in runs))


def claim_of(run: Run, beside: Path) -> Claim:
    """What a run says, and the digests of all that shows it."""
    groups = groups_at(run)
    left = {radius: scores_at(run, radius) for radius in sorted({0.0, *run.header.radii})}
    samples = [sample for sample in groups if all(sample in scores for scores in left.values())]
    estimates = [(measure.radius, measure.estimate) for measure in measured([run])]
    return Claim(
        header=public_header(run.header),
        scores=tuple(Score(radius, e.value, e.low, e.high, e.n) for radius, e in estimates),
        samples=tuple(samples),
        groups=tuple(groups[sample] for sample in samples),
        left={f"{radius:g}": tuple(scores[sample] for sample in samples) for radius, scores in left.items()},
        kind=IMAGES if (run.directory / FOLDER).is_dir() else RECORDS,
        place=Path(os.path.relpath(run.directory, beside)).as_posix(),
        files=evidence(run.directory),
    )


def public_header(header: RunHeader) -> dict[str, object]:
    """A header as JSON data, without what tells of the machine: paths in its request."""
    data: dict[str, object] = json.loads(replace(header, config={}).to_json())
    return data


def evidence(directory: Path) -> dict[str, str]:
    """Path inside a run's folder -> sha256, of everything that its numbers rest on.

    Raises:
        RecordsError: A file cannot be read, or is a link.
    """
    names = [name for name in ("run.json", "records.jsonl", ARCHIVED) if (directory / name).exists()]
    paths = [directory / name for name in names]
    if (directory / FOLDER).is_dir():
        for _, path in saved_paths(directory / FOLDER):
            paths += [path, *([png] if (png := path.with_suffix(".png")).exists() else [])]
    return {path.relative_to(directory).as_posix(): sha256(read_inside(path)).hexdigest() for path in paths}
