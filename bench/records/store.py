"""The one writer of a run directory: begins or resumes a run, appends its records, records its end."""

import contextlib
import errno
import fcntl
import itertools
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from bench.errors import StoppedError
from bench.records.files import (
    RecordsError,
    explained,
    open_inside,
    read_inside,
    sync_directory,
    unlinked,
    write_atomically,
)
from bench.records.header import IDENTITY, RunHeader
from bench.records.ranges import Ranges
from bench.records.reading import ARCHIVED, decode, read_header, split_lines
from bench.records.types import Key, Record, encode

OWN = ("run.json", "records.jsonl", "records.torn", "lock")  # what the store writes
_PLACES = ("encoder", "model", "attack", "surrogate")  # fields that may name a checkpoint by its path


class RunStore:
    """The one writer of a run directory; made by `open_run`, closed by `close` or the end of a `with`."""

    def __init__(self, directory: Path, header: RunHeader) -> None:
        self.directory = directory
        self._records_path = directory / "records.jsonl"
        for place in (directory, *(directory / name for name in OWN)):
            unlinked(place, directory.parent)
        with explained("create", directory):
            directory.mkdir(parents=True, exist_ok=True)
        self._lock = acquire_lock(directory / "lock")
        try:
            self.header = self._begin(header)
            self._done = {record.key for record in self._recover() if record.settled}
            with explained("write", self._records_path):
                self._file = open_inside(self._records_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
                sync_directory(directory)
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        """Give the lock back; mark a run that was cut short: "partial" if on purpose, else "failed"."""
        try:
            if kind is not None and self.header.status == "started":
                with contextlib.suppress(RecordsError):  # the first error is the one to report
                    self.finish("partial" if issubclass(kind, KeyboardInterrupt | StoppedError) else "failed")
        finally:
            self.close()

    @property
    def done(self) -> frozenset[Key]:
        """The keys (sample_id, step, radius) that are settled: what a resumed run skips."""
        return frozenset(self._done)

    def append(self, records: Iterable[Record]) -> None:
        """Write `records` as whole lines in one write, and return once they are on the disk.

        Raises:
            RecordsError: If a key is already recorded without an error, a value is out of range, or the system refuses;
                nothing of the batch is then in the file.
        """
        records = list(records)
        new: set[Key] = set()
        ranges = Ranges(self.header)
        for record in records:
            if record.key in self._done or record.key in new:
                raise RecordsError(f"{self._records_path}: {record.key} is already recorded")
            if wrong := ranges.fault(record):
                raise RecordsError(f"{self._records_path}: {record.key} cannot be recorded: {wrong}")
            if record.settled:
                new.add(record.key)
        if not records:
            return
        if self.header.status != "started":
            self._set_header(status="started", ended=None)
        self._write("".join(record.to_json() + "\n" for record in records).encode("ascii"))
        self._done |= new

    def note(self, checks: Iterable[Mapping[str, Any]]) -> None:
        """Record sanity checks of a run that goes on, so that they are kept if it is cut short."""
        self._set_header(checks=self._with_earlier(checks))

    def _with_earlier(self, checks: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The latest result of each check."""
        return list({check["name"]: dict(check) for check in [*self.header.checks, *checks]}.values())

    def choose_order(self, order: str) -> None:
        """Record the order of radii that the first samples chose: a run that goes on, or a part run again, keeps it."""
        self._set_header(chosen_order=order)

    def finish(self, status: str, checks: Iterable[Mapping[str, Any]] = ()) -> None:
        """Record the end of the run: "complete", "partial" or "failed", and the latest result of each sanity check."""
        ended = datetime.now(UTC).isoformat(timespec="seconds")
        self._set_header(status=status, checks=self._with_earlier(checks), ended=ended)

    def close(self) -> None:
        """Give the lock back."""
        for descriptor in (self._file, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._lock = -1

    def _set_header(self, **changes: Any) -> None:
        header = replace(self.header, **changes)
        write_atomically(self.directory / "run.json", header.to_json())
        self.header = header

    def _begin(self, header: RunHeader) -> RunHeader:
        """Write the header of a new run, or check that of the run that is resumed."""
        path = self.directory / "run.json"
        if not path.exists():
            if self._records_path.exists():
                raise RecordsError(f"{self._records_path} has no run.json beside it; delete or move it")
            write_atomically(path, header.to_json())
            return header
        if (archive := self.directory / ARCHIVED).exists():
            raise RecordsError(
                f"{archive} is the archive of a run, which does not go on; choose another output directory, or use "
                "--force to begin a new run beside it"
            )
        stored = read_header(self.directory)
        if other := _conflict(stored, header):
            raise RecordsError(
                f"{self.directory} holds another run: {other}. {_of_order(stored, header)}Use --force to begin a new "
                "run beside it, choose another output directory, or delete it"
            )
        self.header = stored
        if changed := _differences(stored, header, ("packages",)):
            check = {"name": "resumed-with-the-same-packages", "ok": False, "detail": changed}
            if check not in stored.checks:
                self._set_header(checks=[*stored.checks, check])
        if stored.status not in ("started", "complete"):
            self._set_header(status="started", ended=None)
        return self.header

    def _recover(self) -> list[Record]:
        """The records on disk, after a torn last line was moved to `records.torn`."""
        path = self._records_path
        if not path.exists():
            return []
        content = read_inside(path)
        lines, tail = split_lines(content)
        if tail:
            self._set_header(status="started", ended=None)
            with explained("repair", path):
                torn_path = path.with_name("records.torn")
                with os.fdopen(open_inside(torn_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab") as torn:
                    torn.write(tail + b"\n")
                    torn.flush()
                    os.fsync(torn.fileno())
                with os.fdopen(open_inside(path, os.O_RDWR), "r+b") as file:
                    file.truncate(len(content) - len(tail))
                    os.fsync(file.fileno())
        return decode(lines, path, self.header)

    def _write(self, content: bytes) -> None:
        """Append all of `content`, or cut the file back to what it was.

        Ctrl-C cuts nothing back: what is written is kept, and a torn last line is fixed by the next command.
        """
        with explained("write", self._records_path):
            size = os.fstat(self._file).st_size
            try:
                written = os.write(self._file, content)
                if written != len(content):
                    raise OSError(errno.ENOSPC, f"only {written} of {len(content)} bytes were written")
                os.fsync(self._file)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file, size)
                raise


def open_run(directory: Path | str, header: RunHeader, *, force: bool = False) -> RunStore:
    """Begin the run in `directory`, or resume the one that is there.

    Args:
        directory: The run directory; made if absent.
        header: What is asked. A resumed run keeps the header it began with.
        force: Where the directory holds another run, use a directory beside it (`place_beside`); the store's
            `directory` says which.

    Raises:
        RecordsError: If the directory holds another run (names the field, the old and the new value),
            another process is writing to it (names its process id), it is damaged or cannot be written.
    """
    place = Path(directory)
    return RunStore(place_beside(place, header) if force else place, header)


def place_beside(directory: Path, header: RunHeader) -> Path:
    """The first of NAME, NAME.2, NAME.3, ... that holds no other run than the one asked for."""
    names = (directory.name if k == 1 else f"{directory.name}.{k}" for k in itertools.count(1))
    return next(place for name in names if _may_hold(place := directory.with_name(name), header))


def _may_hold(place: Path, header: RunHeader) -> bool:
    if not (place / "run.json").exists():
        return not (place / "records.jsonl").exists()
    if (place / ARCHIVED).exists():
        return False
    try:
        return not _conflict(read_header(place), header)
    except RecordsError:  # what cannot be read is another run
        return False


def _conflict(stored: RunHeader, asked: RunHeader) -> str:
    """Why the run asked for cannot go on where the stored one stopped, in words; empty if it can.

    Code is compared by the digest of its source files where both have one: a commit that changes only documents,
    or none at all (an installed package), makes no difference; an uncommitted change does.
    """
    found = [_differences(stored, asked, IDENTITY)]
    names = ("source",) if stored.code.get("source") and asked.code.get("source") else ("commit", "dirty")
    if any(stored.code.get(name) != asked.code.get(name) for name in names):
        found.append(_differences(stored, asked, ("code",)))
    return "; ".join(filter(None, found))


def _of_order(stored: RunHeader, asked: RunHeader) -> str:
    """What to do about another order of radii, such as that of a run from when it was the default."""
    order = stored.radii_order
    if order == asked.radii_order:
        return ""
    return (
        f"Its radii were attacked in the order {order!r}, and now the order is {asked.radii_order!r}: --radii-order "
        f"{order} makes a run as that one, in a folder of its own. "
    )


def _differences(stored: RunHeader, asked: RunHeader, names: Iterable[str]) -> str:
    """The fields in which two headers differ, in words; empty if they agree."""
    return "; ".join(
        f"{name} is {old!r} there and {new!r} here"
        for name in names
        if not _alike(name, old := encode(getattr(stored, name)), new := encode(getattr(asked, name)))
    )


def _alike(name: str, old: Any, new: Any) -> bool:
    """Whether two values of a field are the same, or two spellings of a place: there the weights' digests decide."""
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(_alike(key, old[key], new[key]) for key in old)
    if name not in _PLACES or not isinstance(old, str) or not isinstance(new, str):
        return bool(old == new)
    if name == "attack":
        (old, mark, old_source), (new, _, new_source) = old.partition("-from-"), new.partition("-from-")
        return old == new and (not mark or _alike("surrogate", old_source, new_source))
    return old == new or ("/" in old and "/" in new and Path(old).name == Path(new).name)


def acquire_lock(path: Path) -> int:
    """The descriptor of the locked file at `path`; the system frees the lock when its holder dies."""
    with explained("lock", path):
        descriptor = open_inside(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {platform.node() or 'this machine'}\n".encode())
        except BlockingIOError as error:
            holder = os.read(descriptor, 256).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            raise RecordsError(f"{path.parent} is in use: locked by {holder}; wait for it, or stop it") from error
        except BaseException:
            os.close(descriptor)
            raise
    return descriptor
