"""A run's records as columns: what tables, gates and comparisons ask, without a Python object per record.

Reading a million records as objects takes ten times as long as reading what a table needs of them. The rows are checked
as strictly: whatever the fast reader cannot vouch for goes to the exact one, which names the line.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from bench.records.header import RunHeader
from bench.records.ranges import ROUNDING, bounds
from bench.records.types import CLEAN, MOST, Record

CHUNK = 1 << 24  # bytes of records decoded at once: some tens of MB as objects
_FIELDS = [
    (field.name, field.type) if field.required else (field.name, field.type, field.default)
    for field in msgspec.structs.fields(Record)
]
_OPTIONS: Any = {"frozen": True, "gc": False, "forbid_unknown_fields": True}
_FORMER = {"radius": "eps_255", "distance": "distance_255", "loss_curve": "course"}
# Records whose values nobody has looked at, under today's names and under those of schema version 1:
_ROWS: Any = msgspec.json.Decoder(msgspec.defstruct("_Row", _FIELDS, **_OPTIONS))
_FORMER_ROWS: Any = msgspec.json.Decoder(
    msgspec.defstruct("_FormerRow", [("flags", tuple[str, ...]), *_FIELDS], rename=_FORMER, **_OPTIONS)
)
Floats = npt.NDArray[np.float64]
Wholes = npt.NDArray[np.int64]
_Part = tuple[Wholes, Wholes, Floats, Floats]  # sample, step, radius, score


@dataclass(frozen=True)
class Columns:
    """N records of S samples.

    Attributes:
        samples: ids, in the order of their first record (S,).
        groups: of each sample (S,).
        sample: which one each record is of (N,).
        clean: whether its step is the clean one (N,).
        radius: in the run's unit (N,).
        score: NaN where the record is an error (N,).
        first_error: the first error among the records; None if there is none.
        asked_again: whether any image was shown to the model once more.
    """

    samples: tuple[str, ...]
    groups: tuple[str, ...]
    sample: Wholes
    clean: npt.NDArray[np.bool_]
    radius: Floats
    score: Floats
    first_error: str | None
    asked_again: bool

    @property
    def scored(self) -> npt.NDArray[np.bool_]:
        """Whether each record has a score (N,)."""
        return ~np.isnan(self.score)


def of_records(records: Sequence[Record]) -> Columns:
    """The columns of records that have been checked."""
    gathered = _Gathered()
    gathered.add(records)
    return gathered.columns()


def read(content: bytes, header: RunHeader) -> Columns | None:
    """The columns of record lines; None where the exact reader should look: damage, errors that were made good.

    Args:
        content: Whole lines, each ended by a newline.
        header: Of the run.
    """
    gathered = _Gathered()
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError, OverflowError):
        for chunk in _chunks(content):
            rows = _rows(chunk)
            if len(rows) != chunk.count(b"\n") or not _are_sound(rows, header):
                return None
            gathered.add(rows)
        return None if gathered.has_repeats else gathered.columns()
    return None


def _rows(chunk: bytes) -> list[Record]:
    """What has the fields of a record, under today's names or former ones.

    Raises:
        msgspec.DecodeError: A line has others, or is damaged.
    """
    try:
        found: list[Record] = _ROWS.decode_lines(chunk)
    except msgspec.ValidationError:
        found = _FORMER_ROWS.decode_lines(chunk)
    return found


def _chunks(content: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(content):
        end = content.find(b"\n", min(start + CHUNK, len(content)) - 1) + 1 or len(content)
        yield content[start:end]
        start = end


def _are_sound(rows: Sequence[Record], header: RunHeader) -> bool:
    """Whether every value can be: what `Record` and `Ranges` ask of one row, asked of all at once."""
    if any(row.draws is not None or row.screen is not None for row in rows):
        return False  # the exact reader looks at draws
    failed, clean = (np.array(column, bool) for column in ([r.error is not None for r in rows], _are_clean(rows)))
    radius, distance = np.array([r.radius for r in rows], float), np.array([r.distance for r in rows], float)
    seconds, evaluations = np.array([r.seconds for r in rows], float), np.array([r.evaluations for r in rows], float)
    score = np.array([r.score for r in rows], float)  # None becomes NaN
    png_score = np.array([r.png_score for r in rows], float)
    low, high, slack = bounds(header)
    strays = [(values < low - slack) | (values > high + slack) for values in (score, png_score)]
    wrong = (
        ~np.isfinite(radius)
        | (radius < 0)
        | (clean & (radius != 0))
        | (~clean & ~np.isin(radius, header.radii))
        | ~np.isfinite(seconds)
        | (seconds < 0)
        | (evaluations < 0)
        | (evaluations >= MOST)
        | (~failed & (~np.isfinite(score) | ~np.isfinite(distance) | (distance < 0)))
        | (~failed & (distance > radius * (1 + ROUNDING)))
        | (~failed & (strays[0] | strays[1]))
    )
    return not bool(wrong.any())


def _are_clean(rows: Iterable[Record]) -> list[bool]:
    return [row.step == CLEAN for row in rows]


class _Gathered:
    """Columns as they grow."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._steps: dict[str, int] = {}
        self._groups: dict[str, str] = {}
        self._parts: list[_Part] = []
        self._error: str | None = None
        self._asked_again = False

    def add(self, rows: Sequence[Record]) -> None:
        """Take rows in.

        Raises:
            ValueError: A sample has two groups.
        """
        names, steps = [row.sample_id for row in rows], [row.step for row in rows]
        for name, group in dict.fromkeys(zip(names, [row.group for row in rows], strict=True)):
            if self._groups.setdefault(name, group) != group:
                raise ValueError(f"sample {name!r} has two groups")
        sample, step = _numbered(names, self._ids), _numbered(steps, self._steps)
        errors = [row.error for row in rows]
        self._asked_again = self._asked_again or any(row.repeats for row in rows)
        if self._error is None:
            self._error = next((error for error in errors if error is not None), None)
        score = np.array([row.score for row in rows], float)
        score[np.array([error is not None for error in errors], bool)] = np.nan
        self._parts.append((sample, step, np.array([row.radius for row in rows], float), score))

    @property
    def has_repeats(self) -> bool:
        """Whether a sample, step and radius came twice."""
        sample, step, radius, _ = self._joined()
        radii = np.unique(radius)
        keys = np.sort((sample * len(self._steps) + step) * len(radii) + np.searchsorted(radii, radius))
        return bool((keys[1:] == keys[:-1]).any())

    def columns(self) -> Columns:
        """What was gathered."""
        sample, step, radius, score = self._joined()
        clean = step == self._steps.get(CLEAN, -1)
        names, groups = tuple(self._ids), tuple(self._groups.values())
        return Columns(names, groups, sample, clean, radius, score, self._error, self._asked_again)

    def _joined(self) -> _Part:
        empty: _Part = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), np.empty(0))
        sample, step, radius, score = (np.concatenate(column) for column in zip(empty, *self._parts, strict=True))
        return sample, step, radius, score


def _numbered(names: Sequence[str], numbers: dict[str, int]) -> Wholes:
    """The number of each name (N,); new ones are numbered on."""
    for name in dict.fromkeys(names):
        numbers.setdefault(name, len(numbers))
    return np.fromiter(map(numbers.__getitem__, names), np.int64, len(names))
