"""Making one run of its finished shards: images first, records next, the header last, so that a crash loses nothing."""

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from bench.records import images, samples
from bench.records.files import RecordsError, explained, read_inside, unlinked, write_atomically
from bench.records.header import RunHeader, differences
from bench.records.reading import load_run, union
from bench.records.run import Run
from bench.records.shards import FOLDER, Shard
from bench.records.store import acquire_lock
from bench.records.types import Record

Conclude = Callable[[RunHeader, list[Record]], tuple[RunHeader, list[Record]]]


def join_shards(run: Path, shards: Sequence[Shard], conclude: Conclude) -> None:
    """Write the union of a run's shards into its directory, and delete them.

    Args:
        run: the run's directory.
        shards: all of them, each finished.
        conclude: from a header that goes on and the records, shard by shard, to the header and order to be written.

    Raises:
        RecordsError: If a shard is absent, damaged, of another run or in use, two hold the same sample, or the system
            refuses.
    """
    with ExitStack() as whole:
        whole.callback(os.close, acquire_lock(unlinked(run / "lock", run)))
        with ExitStack() as parts:
            for shard in shards:
                parts.callback(os.close, acquire_lock(unlinked(shard.folder(run) / "lock", run)))
            _write_union(run, [load_run(shard.folder(run)) for shard in shards], conclude)
        _delete(run)


def _write_union(run: Path, parts: Sequence[Run], conclude: Conclude) -> None:
    header, records = conclude(_common_header(parts), union(parts))
    for part in parts:
        _move_images(part.directory, run)
    asked = read_inside(unlinked(parts[0].directory / samples.FILE, run)).decode()
    write_atomically(unlinked(run / samples.FILE, run), asked)
    lines = "".join(record.to_json() + "\n" for record in records)
    write_atomically(unlinked(run / "records.jsonl", run), lines)
    write_atomically(unlinked(run / "run.json", run), header.to_json())


def _common_header(parts: Sequence[Run]) -> RunHeader:
    """The first shard's header from the earliest start on; each check as the first shard has it that failed it."""
    headers = [part.header for part in parts]
    checks = {check["name"]: check for header in reversed(headers) for check in header.checks if check["ok"]}
    checks |= {check["name"]: check for header in reversed(headers) for check in header.checks if not check["ok"]}
    changed = [found for header in headers for found in differences(headers[0], header, ("packages", "code"))]
    if changed:
        name, first, second = changed[0]
        detail = f"{name} is {first!r} in one shard and {second!r} in another"
        checks["shards-of-the-same-code"] = {"name": "shards-of-the-same-code", "ok": False, "detail": detail}
    return replace(
        headers[0],
        started=min(header.started for header in headers),
        device=", ".join(dict.fromkeys(header.device for header in headers)),
        checks=list(checks.values()),
    )


def _move_images(shard: Path, run: Path) -> None:
    """Samples of different shards have images of different names."""
    folder = unlinked(shard / images.FOLDER, run)
    for place in folder.iterdir() if folder.is_dir() else ():
        if place.name == images.WAITING:
            continue
        target = unlinked(run / images.FOLDER / place.name, run)
        with explained("move", target):
            target.mkdir(parents=True, exist_ok=True)
            for path in unlinked(place, run).iterdir():
                os.replace(path, target / path.name)


def clear_joined(run: Path, shards: Sequence[Shard]) -> None:
    """Delete what a crash left of shards that were joined.

    Raises:
        RecordsError: If the run lacks a record of theirs.
    """
    joined = {record.key for record in load_run(run).records}
    for shard in shards:
        folder = shard.folder(run)
        if (folder / "run.json").exists() and not joined.issuperset(r.key for r in load_run(folder).records):
            raise RecordsError(f"{run} is a run in one piece, and {folder} another part of it; delete one of the two")
    _delete(run)


def _delete(run: Path) -> None:
    folder = unlinked(run / FOLDER, run)
    with explained("delete", folder):
        shutil.rmtree(folder)
