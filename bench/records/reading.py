"""Reading runs back, and archiving whole ones."""

import contextlib
import gzip
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec

from bench.records import columns
from bench.records.files import RecordsError, explained, read_inside, unlinked, write_atomically
from bench.records.header import IDENTITY, RunHeader, differences
from bench.records.ranges import Ranges
from bench.records.run import Run
from bench.records.samples import FILE as SAMPLES
from bench.records.samples import read_samples, write_samples
from bench.records.shards import run_of, shards_in
from bench.records.types import FormerRecord, Key, Record

RECORDS = "records.jsonl"
ARCHIVED = "records.jsonl.gz"

_NOT_PLAIN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, RecordsError)
_RECORDS = msgspec.json.Decoder(Record)
_FORMER_RECORDS = msgspec.json.Decoder(FormerRecord)


def split_lines(content: bytes) -> tuple[list[bytes], bytes]:
    """The whole lines of a record file, and what follows the last newline: empty unless a write was torn."""
    *lines, tail = content.split(b"\n")
    return lines, tail


def decode(lines: list[bytes], path: Path, header: RunHeader) -> list[Record]:
    """The records in `lines`; an error row gives way to a later record with the same key."""
    records: dict[Key, Record] = {}
    groups: dict[str, str] = {}
    ranges = Ranges(header)
    for number, record in enumerate(_parsed(lines, path), start=1):
        if wrong := ranges.fault(record):
            raise RecordsError(f"{path}, line {number}: {wrong}; restore it or delete the run")
        earlier = records.get(record.key)
        if earlier is not None and earlier.settled:
            raise RecordsError(f"{path}, line {number}: {record.key} is recorded twice; delete the run")
        if groups.setdefault(record.sample_id, record.group) != record.group:
            raise RecordsError(f"{path}, line {number}: sample {record.sample_id!r} has two groups; delete the run")
        records[record.key] = record
    return list(records.values())


def _parsed(lines: list[bytes], path: Path) -> list[Record]:
    """One record a line.

    Line by line, ten times as slow, where the fast readers balk: at "nan" for a number, at a file that began in schema
    version 1 and went on in today's, or at damage, to name it.
    """
    content = b"\n".join(lines)
    with contextlib.suppress(*_NOT_PLAIN):
        if len(records := _RECORDS.decode_lines(content)) == len(lines):
            return records
    with contextlib.suppress(*_NOT_PLAIN):
        if len(former := _FORMER_RECORDS.decode_lines(content)) == len(lines):
            return [record.renamed() for record in former]
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(Record.from_json(line))
        except RecordsError as error:
            raise RecordsError(f"{path}, line {number}: {error}; restore it or delete the run") from error
    return records


def read_header(directory: Path | str) -> RunHeader:
    """The header of the run in `directory`; before its shards are joined that of the first, as of a run under way.

    Raises:
        RecordsError: If it is absent or damaged.
    """
    path = Path(directory) / "run.json"
    with explained("read", path):  # a name may be longer than the file system takes
        is_there = path.exists()
    if not is_there and (folders := _shard_folders(path.parent)):
        return replace(read_header(folders[0]), status="started", ended=None, checks=[])
    text = read_inside(path)
    try:
        return RunHeader.from_json(text)
    except RecordsError as error:
        raise RecordsError(f"{path}: {error}; restore it or delete the run") from error


def read_records(directory: Path | str) -> list[Record]:
    """The records of the run in `directory`, error rows that were made good left out.

    A half-written last line is left out too while the run is not complete (it may be under way).

    Raises:
        RecordsError: If a line is damaged or a value out of range, a key was recorded twice, or a complete run ends in
            a torn line.
    """
    return load_run(directory).records


def _content(directory: Path, header: RunHeader) -> tuple[Path, bytes]:
    """The file of a run's records, and what is in it; a run that is under way may have none yet."""
    path, archived = directory / RECORDS, directory / ARCHIVED
    is_packed = archived.is_symlink() or archived.exists()
    if path.is_symlink() or path.exists():
        content = read_inside(path)
        if is_packed and _unpacked(archived) != content:
            raise RecordsError(f"{path} and {archived} both hold records, and not the same; delete one of them")
        return path, content
    if is_packed:
        return archived, _unpacked(archived)
    if header.status == "complete":
        raise RecordsError(f"{directory} has no records ({path.name} or {ARCHIVED}); restore them or delete the run")
    return path, b""


def _unpacked(path: Path) -> bytes:
    packed = read_inside(path)
    try:
        if not packed:
            raise EOFError("it is empty")
        return gzip.decompress(packed)
    except (EOFError, OSError, zlib.error) as error:
        raise RecordsError(f"{path} is damaged or cut short: {error}; restore it or delete the run") from error


def archive_run(source: Path | str, target: Path | str) -> None:
    """Copy a complete run to `target` with what it asked, its records compressed; equal records give equal bytes.

    What an older run or archive there holds is replaced.

    Where the run was written and sent is left out of the copy's header: it names a place of one person, and moves no
    number.

    Raises:
        RecordsError: If the run is partial, damaged, or `target` cannot be written.
    """
    run = load_run(source)
    if run.header.partial:
        raise RecordsError(f"{source} is partial ({run.header.partial}); only whole runs are archived")
    target, asked = Path(target), read_samples(run.directory)
    lines = "".join(record.to_json() + "\n" for record in run.records)
    with explained("write", target):
        target.mkdir(parents=True, exist_ok=True)
        unlinked(target / ARCHIVED, target).write_bytes(gzip.compress(lines.encode("ascii"), mtime=0))
        for name in (SAMPLES, RECORDS):
            unlinked(target / name, target).unlink(missing_ok=True)
    config = {name: value for name, value in run.header.config.items() if name not in ("output", "log_to")}
    write_atomically(unlinked(target / "run.json", target), replace(run.header, config=config).to_json())
    if asked:
        write_samples(target, asked.values())


def load_run(directory: Path | str) -> Run:
    """Header and records of the run in `directory`, or of its shards until they are joined.

    Raises:
        RecordsError: As of `read_records`; or shards are of different runs, or hold the same sample.
    """
    directory = Path(directory)
    header = read_header(directory)
    if not (directory / "run.json").exists():
        return Run(directory, header, union([load_run(folder) for folder in _shard_folders(directory)]))
    path, content = _content(directory, header)
    whole, tail = content[: (end := content.rfind(b"\n") + 1)], content[end:]
    if tail and header.status == "complete":
        raise RecordsError(f"{path}: the run is complete but its last line is torn; give its command again")
    if (known := columns.read(whole, header)) is not None:
        return Run(directory, header, partial(_decoded, directory, header), known)
    return Run(directory, header, decode(split_lines(whole)[0], path, header))


def _decoded(directory: Path, header: RunHeader, rows: Iterable[int] | None) -> list[Record]:
    """The records of a run whose columns have been read, all or some: their file again, for it was not kept."""
    path, content = _content(directory, header)
    lines = split_lines(content)[0]
    return decode(lines if rows is None else [lines[row] for row in rows], path, header)


def _shard_folders(directory: Path) -> list[Path]:
    """The folders of a run's shards that have begun."""
    folders = [shard.folder(directory) for shard in shards_in(directory)]
    return [folder for folder in folders if (folder / "run.json").exists()]


def union(shards: Sequence[Run]) -> list[Record]:
    """The records of all shards of one run, shard by shard.

    Raises:
        RecordsError: If their headers differ in what identifies a run, or two hold the same sample.
    """
    owners: dict[str, Run] = {}
    for shard in shards:
        if other := differences(shards[0].header, shard.header, IDENTITY):
            name, first, second = other[0]
            raise RecordsError(
                f"{shard.directory} is a shard of another run than {shards[0].directory}: {name} is {second!r} there "
                f"and {first!r} here; delete one of them and give the command again"
            )
        for record in shard.records:
            if (owner := owners.setdefault(record.sample_id, shard)) is not shard:
                raise RecordsError(
                    f"sample {record.sample_id!r} is recorded in both {owner.directory} and {shard.directory}; "
                    "delete one of them and give the command again"
                )
    return [record for shard in shards for record in shard.records]


def find_runs(root: Path | str) -> list[Path]:
    """The run directories at and below `root`, sorted; of a run in shards, its own.

    Raises:
        RecordsError: If there is no such directory.
    """
    root = Path(root)
    if not root.is_dir():
        raise RecordsError(f"no directory {root}; check the path")
    return sorted({run_of(path.parent) for path in root.rglob("run.json")})


def load_runs(roots: Sequence[Path]) -> list[Run]:
    """Every run under the given directories, each once however many of them it lies under.

    Raises:
        RecordsError: If there is none.
    """
    found = [directory for root in roots for directory in find_runs(root)]
    places = {directory.resolve(): directory for directory in reversed(found)}  # the first way to it
    runs = [load_run(directory) for directory in found if places[directory.resolve()] is directory]
    if not runs:
        raise RecordsError(f"no runs under {', '.join(map(str, roots))}; make some with `bench run`")
    return runs
