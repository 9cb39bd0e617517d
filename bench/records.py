"""The record store: what a run wrote down, and how it survives a crash. Standard library only.

A *run* is one directory: one (suite, encoder, task, dataset, attack, eps list, seed, sample selection).

    run.json        the header: what was asked, of which code, weights and data; replaced atomically
    records.jsonl   one JSON object a line for each (sample, step); only ever appended to
    records.torn    what a crash left half written, moved aside when the run is resumed
    lock            held (flock) by the one process that may write; names its process id
"""

import contextlib
import errno
import fcntl
import gzip
import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

SCHEMA_VERSION = 1
CLEAN = "clean"
STATUSES = ("started", "complete", "partial", "failed")
Key = tuple[str, str, float]

_REMEDIES = {
    errno.ENOSPC: "free space there, then give the same command again: it resumes",
    errno.EDQUOT: "the disk quota is used up; free space, then give the same command again: it resumes",
    errno.EACCES: "make it writable, or choose another output directory",
    errno.EPERM: "make it writable, or choose another output directory",
    errno.EROFS: "the file system is read-only; choose another output directory",
    errno.ENOLCK: "the file system has no locks; choose an output directory on a local disk",
    errno.EOPNOTSUPP: "the file system has no locks; choose an output directory on a local disk",
    errno.ENOENT: "check the path",
}


class RecordsError(Exception):
    """A run directory cannot be written, read or trusted; the text names the path and what to do."""


@contextlib.contextmanager
def _explained(action: str, path: Path):
    """Turns an `OSError` inside the block into a `RecordsError` that names the path and a remedy."""
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "see the system's message")
        raise RecordsError(f"cannot {action} {path}: {error.strerror or error} ({remedy})") from error


def _encode(value: Any) -> Any:
    """JSON data for `value`; NaN and infinities become the strings "nan", "inf", "-inf", never null or 0."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(float(value))
    if isinstance(value, Mapping):
        return {str(key): _encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(item) for item in value]
    return value


def _number(value: Any) -> float:
    """The float that `_encode` wrote."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if value in ("nan", "inf", "-inf"):
        return float(value)
    raise RecordsError(f"{value!r} is not a number")


def _parse(text: str | bytes, known: Iterable[str], optional: Iterable[str] = ()) -> dict[str, Any]:
    """The JSON object in `text`, which must have exactly the keys `known`, of which it may lack the `optional`."""

    def refuse(constant: str) -> None:
        raise RecordsError(f'bare {constant} in JSON; it is written as the string "nan", "inf" or "-inf"')

    try:
        data = json.loads(text, parse_constant=refuse)
    except ValueError as error:
        raise RecordsError(f"not JSON ({error})") from error
    if not isinstance(data, dict):
        raise RecordsError(f"not a JSON object but a {type(data).__name__}")
    known = set(known)
    if unknown := sorted(data.keys() - known):
        raise RecordsError(f"unknown key {', '.join(unknown)} (written by a newer version?)")
    if missing := sorted(known - data.keys() - set(optional)):
        raise RecordsError(f"missing key {', '.join(missing)}")
    return data


@dataclass(frozen=True, slots=True)
class Record:
    """What one step did to one sample.

    Attributes:
        sample_id: The sample, unique within the dataset.
        group: What to cluster by in statistics: the image id.
        step: "clean", or the name of the attack step, such as "apgd-ce" or "reference-0".
        eps_255: Radius in 1/255 of the pixel range; 0.0 for clean.
        prediction: The model's answer, as it was scored.
        score: On the metric's published scale (percent, or CIDEr x 100); None only with an error.
        loss: The objective's value; may be NaN or infinite.
        distance_255: l-infinity distance to the clean image in 1/255; for l2 in plain l2 units.
        evaluations: Gradient evaluations spent.
        flags: Names of noteworthy events, such as a failed certificate.
        error: Why there is no score; None if there is one.
        seconds: Wall-clock time, shared evenly over the batch.
        png_score: Score of the adversarial image after a round trip through an 8-bit PNG; None if not asked for.

    Raises:
        RecordsError: If a field has another type than is written here, or the score is absent or not
            finite although no error is given: a NaN is neither robust nor a success.
    """

    sample_id: str
    group: str
    step: str
    eps_255: float
    prediction: str
    score: float | None
    loss: float | None
    distance_255: float
    evaluations: int
    flags: tuple[str, ...]
    error: str | None
    seconds: float
    png_score: float | None = None

    def __post_init__(self) -> None:
        for name in ("sample_id", "group", "step", "prediction"):
            if not isinstance(getattr(self, name), str):
                raise RecordsError(f"{name} must be a string, not {getattr(self, name)!r}")
        for name in ("eps_255", "distance_255", "seconds", "score", "loss", "png_score"):
            value = getattr(self, name)
            absent = value is None and name in ("score", "loss", "png_score")
            if not absent and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise RecordsError(f"{name} must be a number, not {value!r}")
        if not isinstance(self.evaluations, int) or self.evaluations < 0:
            raise RecordsError(f"evaluations must be a count, not {self.evaluations!r}")
        if not isinstance(self.flags, tuple) or not all(isinstance(flag, str) for flag in self.flags):
            raise RecordsError(f"flags must be a tuple of strings, not {self.flags!r}")
        if not (self.error is None or isinstance(self.error, str)):
            raise RecordsError(f"error must be a string or None, not {self.error!r}")
        if not 0 <= self.eps_255 < math.inf or (self.step == CLEAN and self.eps_255 != 0):
            raise RecordsError(f"eps_255 is {self.eps_255} in step {self.step!r}; clean is 0, an attack >= 0")
        if self.error is None and (self.score is None or not math.isfinite(self.score)):
            raise RecordsError(f"score is {self.score} for sample {self.sample_id!r} without an error")

    @property
    def key(self) -> Key:
        """What may be recorded only once: (sample_id, step, eps_255)."""
        return self.sample_id, self.step, float(self.eps_255)

    def to_json(self) -> str:
        """One line of JSON, without the newline."""
        data = {f.name: _encode(getattr(self, f.name)) for f in fields(self)}
        if self.png_score is None:
            del data["png_score"]
        return json.dumps(data, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The record that `to_json` wrote.

        Raises:
            RecordsError: If a key is unknown or missing, or a value has the wrong type.
        """
        data = _parse(text, (f.name for f in fields(cls)), optional=("png_score",))
        for name in ("eps_255", "distance_255", "seconds", "score", "loss", "png_score"):
            if data.get(name) is not None:
                data[name] = _number(data[name])
        if isinstance(data["flags"], list):
            data["flags"] = tuple(data["flags"])
        return cls(**data)


@dataclass(frozen=True)
class RunHeader:
    """Where a run's numbers come from.

    Attributes:
        schema_version: Version of this format, `SCHEMA_VERSION`.
        suite: Name of the suite, such as "mini".
        encoder: Name of the CLIP image encoder under test.
        task: Task family, such as "vqa".
        task_version: Anything that moves a score bumps it.
        dataset: Name of the dataset.
        metric: Name of the metric, such as "accuracy" or "CIDEr".
        worst: The direction in which the attacker pushes the score.
        norm: "linf" or "l2".
        attack: Name of the attack preset.
        eps_255: Radii in 1/255 of the pixel range, clean excluded.
        seed: Seed from which the runner draws all randomness.
        n_samples: Number of samples that the run is to score, after `limit`.
        limit: Number of samples asked for with --limit, which makes the run partial; None for all.
        model: Name of the vision-language model around the encoder; None without one.
        dataset_fingerprint: Digest of the data.
        weights: Name of each file of weights -> sha256.
        attack_steps: The steps of the attack preset, as data.
        protocol: Everything else that moves a score (precision, prompts, ...), free form.
        code: {"commit": ..., "dirty": ...}.
        packages: Name -> version.
        device: The device, in words.
        started: Start, ISO 8601.
        ended: End, ISO 8601; None until the run is finished.
        status: One of `STATUSES`.
        checks: Verdicts on the run, each {"name", "ok", "detail"}.
    """

    schema_version: int
    suite: str
    encoder: str
    task: str
    task_version: int | str
    dataset: str
    metric: str
    worst: Literal["min", "max"]
    norm: str
    attack: str
    eps_255: tuple[float, ...]
    seed: int
    n_samples: int
    limit: int | None
    model: str | None
    dataset_fingerprint: str
    weights: dict[str, str]
    attack_steps: list[dict[str, Any]]
    protocol: dict[str, Any]
    code: dict[str, Any]
    packages: dict[str, str]
    device: str
    started: str
    ended: str | None = None
    status: str = "started"
    checks: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise RecordsError(f"schema_version is {self.schema_version}, this version has {SCHEMA_VERSION}")
        if self.worst not in ("min", "max"):
            raise RecordsError(f'worst must be "min" or "max", not {self.worst!r}')
        if self.status not in STATUSES:
            raise RecordsError(f"status must be one of {', '.join(STATUSES)}, not {self.status!r}")
        if not all(0 <= eps < math.inf for eps in self.eps_255):
            raise RecordsError(f"eps_255 must be finite and >= 0, not {self.eps_255}")

    @property
    def partial(self) -> str | None:
        """Why the run's numbers are not those of the whole run, in words; None if they are."""
        if self.limit is not None:
            return f"--limit {self.limit}"
        return None if self.status == "complete" else f"status {self.status}"

    def to_json(self) -> str:
        """Indented JSON. NaN in a free-form field becomes the string "nan" and stays one."""
        return json.dumps(_encode(asdict(self)), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The header that `to_json` wrote.

        Raises:
            RecordsError: If a key is unknown or missing, or the schema is another.
        """
        data = _parse(text, (f.name for f in fields(cls)))
        data["eps_255"] = tuple(_number(eps) for eps in data["eps_255"])
        return cls(**data)


ARCHIVED = "records.jsonl.gz"
VOLATILE = ("code", "packages", "device", "started", "ended", "status", "checks")
IDENTITY = tuple(f.name for f in fields(RunHeader) if f.name not in VOLATILE)


@dataclass(frozen=True)
class Run:
    """A run as it lies on disk."""

    directory: Path
    header: RunHeader
    records: list[Record]


def write_atomically(path: Path, text: str) -> None:
    """Replaces the file at `path` by `text`, or leaves it as it was.

    Raises:
        RecordsError: If the system refuses; names the path and a remedy.
    """
    path = path.resolve()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _explained("write", path):
        try:
            with temporary.open("w", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            if path.exists():
                shutil.copymode(path, temporary)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _split(content: bytes) -> tuple[list[bytes], bytes]:
    """The whole lines of a record file, and what follows the last newline: empty unless a write was torn."""
    *lines, tail = content.split(b"\n")
    return lines, tail


def _decode(lines: list[bytes], path: Path) -> list[Record]:
    """The records in `lines`; an error row gives way to a later record with the same key."""
    records: dict[Key, Record] = {}
    for number, line in enumerate(lines, start=1):
        try:
            record = Record.from_json(line)
        except RecordsError as error:
            raise RecordsError(f"{path}, line {number}: {error}; restore it or delete the run") from error
        earlier = records.get(record.key)
        if earlier is not None and earlier.error is None:
            raise RecordsError(f"{path}, line {number}: {record.key} is recorded twice; delete the run")
        records[record.key] = record
    return list(records.values())


def read_header(directory: Path | str) -> RunHeader:
    """The header of the run in `directory`.

    Raises:
        RecordsError: If it is absent or damaged.
    """
    path = Path(directory) / "run.json"
    with _explained("read", path):
        text = path.read_bytes()
    try:
        return RunHeader.from_json(text)
    except (RecordsError, TypeError) as error:
        raise RecordsError(f"{path}: {error}") from error


def read_records(directory: Path | str) -> list[Record]:
    """The records of the run in `directory`, error rows that were made good left out.

    A half-written last line is left out too while the run is not complete (it may be under way).

    Raises:
        RecordsError: If a line is damaged, a key was recorded twice, or a complete run ends in a torn line.
    """
    path, archived = Path(directory) / "records.jsonl", Path(directory) / ARCHIVED
    status = read_header(directory).status
    with _explained("read", path):
        if archived.exists() and not path.exists():
            path, content = archived, gzip.decompress(archived.read_bytes())
        else:
            content = path.read_bytes() if path.exists() or status == "complete" else b""
    lines, tail = _split(content)
    if tail and status == "complete":
        raise RecordsError(f"{path}: the run is complete but its last line is torn; give its command again")
    return _decode(lines, path)


def archive_run(source: Path | str, target: Path | str) -> None:
    """Copies a complete run to `target`, its records compressed; equal records give equal bytes.

    Raises:
        RecordsError: If the run is partial, damaged, or `target` cannot be written.
    """
    run = load_run(source)
    if run.header.partial:
        raise RecordsError(f"{source} is partial ({run.header.partial}); only whole runs are archived")
    target = Path(target)
    lines = "".join(record.to_json() + "\n" for record in run.records)
    with _explained("write", target):
        target.mkdir(parents=True, exist_ok=True)
        (target / ARCHIVED).write_bytes(gzip.compress(lines.encode("ascii"), mtime=0))
    write_atomically(target / "run.json", run.header.to_json())


def load_run(directory: Path | str) -> Run:
    """Header and records of the run in `directory`."""
    return Run(Path(directory), read_header(directory), read_records(directory))


def find_runs(root: Path | str) -> list[Path]:
    """The run directories at and below `root`, sorted.

    Raises:
        RecordsError: If there is no such directory.
    """
    root = Path(root)
    if not root.is_dir():
        raise RecordsError(f"no directory {root}; check the path")
    return sorted(path.parent for path in root.rglob("run.json"))


class RunStore:
    """The one writer of a run directory; made by `open_run`, closed by `close` or the end of a `with`."""

    def __init__(self, directory: Path, header: RunHeader) -> None:
        self.directory = directory
        self._records_path = directory / "records.jsonl"
        with _explained("create", directory):
            directory.mkdir(parents=True, exist_ok=True)
        self._lock = _acquire(directory / "lock")
        try:
            self.header = self._begin(header)
            self._done = {record.key for record in self._recover() if record.error is None}
            with _explained("write", self._records_path):
                self._file = os.open(self._records_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
                _sync_directory(directory)
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def done(self) -> frozenset[Key]:
        """The keys (sample_id, step, eps_255) recorded without an error: what a resumed run skips."""
        return frozenset(self._done)

    def append(self, records: Iterable[Record]) -> None:
        """Writes `records` as whole lines in one write, and returns once they are on the disk.

        Raises:
            RecordsError: If a key is already recorded without an error, or the system refuses; nothing
                of the batch is then in the file.
        """
        records = list(records)
        done = set(self._done)
        for record in records:
            if record.key in done:
                raise RecordsError(f"{self._records_path}: {record.key} is already recorded")
            if record.error is None:
                done.add(record.key)
        if not records:
            return
        if self.header.status != "started":
            self._set_header(status="started", ended=None)
        self._write("".join(record.to_json() + "\n" for record in records).encode("ascii"))
        self._done = done

    def finish(self, status: str, checks: Iterable[Mapping[str, Any]] = ()) -> None:
        """Records the end of the run: "complete", "partial" or "failed", and each check's latest verdict."""
        checks = list({check["name"]: dict(check) for check in [*self.header.checks, *checks]}.values())
        self._set_header(status=status, checks=checks, ended=datetime.now(UTC).isoformat(timespec="seconds"))

    def close(self) -> None:
        """Gives the lock back."""
        for descriptor in (self._file, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._lock = -1

    def _set_header(self, **changes: Any) -> None:
        header = replace(self.header, **changes)
        write_atomically(self.directory / "run.json", header.to_json())
        self.header = header

    def _begin(self, header: RunHeader) -> RunHeader:
        """Writes the header of a new run, or verifies that of the run that is resumed."""
        path = self.directory / "run.json"
        if not path.exists():
            if self._records_path.exists():
                raise RecordsError(f"{self._records_path} has no run.json beside it; delete or move it")
            write_atomically(path, header.to_json())
            return header
        stored = read_header(self.directory)
        if other := _differences(stored, header, IDENTITY):
            raise RecordsError(f"{self.directory} holds another run: {other}. Choose another directory or delete it")
        self.header = stored
        if changed := _differences(stored, header, ("code", "packages")):
            check = {"name": "resumed-by-the-same-code", "ok": False, "detail": changed}
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
        with _explained("repair", path):
            content = path.read_bytes()
            lines, tail = _split(content)
            if tail:
                self._set_header(status="started", ended=None)
                with path.with_name("records.torn").open("ab") as torn:
                    torn.write(tail + b"\n")
                    torn.flush()
                    os.fsync(torn.fileno())
                with path.open("r+b") as file:
                    file.truncate(len(content) - len(tail))
                    os.fsync(file.fileno())
        return _decode(lines, path)

    def _write(self, content: bytes) -> None:
        """Appends all of `content`, or cuts the file back to what it was."""
        with _explained("write", self._records_path):
            size = os.fstat(self._file).st_size
            try:
                written = os.write(self._file, content)
                if written != len(content):
                    raise OSError(errno.ENOSPC, f"only {written} of {len(content)} bytes were written")
                os.fsync(self._file)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file, size)
                raise


def open_run(directory: Path | str, header: RunHeader) -> RunStore:
    """Begins the run in `directory`, or resumes the one that is there.

    Args:
        directory: The run directory; made if absent.
        header: What is asked. A resumed run keeps the header it began with.

    Raises:
        RecordsError: If the directory holds another run (names the field, the old and the new value),
            another process is writing to it (names its process id), it is damaged or cannot be written.
    """
    return RunStore(Path(directory), header)


def _differences(stored: RunHeader, asked: RunHeader, names: Iterable[str]) -> str:
    """The fields in which two headers differ, in words; empty if they agree."""
    return "; ".join(
        f"{name} is {old!r} there and {new!r} here"
        for name in names
        if (old := _encode(getattr(stored, name))) != (new := _encode(getattr(asked, name)))
    )


def _acquire(path: Path) -> int:
    """The descriptor of the locked file at `path`; the system frees the lock when its holder dies."""
    with _explained("lock", path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, b"%d\n" % os.getpid())
        except BlockingIOError as error:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise RecordsError(f"{path.parent} is in use: locked by process {holder}") from error
        except BaseException:
            os.close(descriptor)
            raise
    return descriptor
