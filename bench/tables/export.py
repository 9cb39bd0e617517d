"""Every number as a file for other programs: CSV, Parquet, and results of lm-evaluation-harness."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench.analysis.cells import Measure
from bench.analysis.facts import Facts
from bench.errors import UsageError
from bench.records import Run, write_atomically
from bench.records.files import explained
from bench.tables.layouts import flat
from bench.tables.lm_eval import write_lm_eval
from bench.tables.rows import COLUMNS, frame
from bench.trust.text import for_csv

if TYPE_CHECKING:
    import pandas as pd

_BESIDE: Mapping[str, Callable[[Measure], str | bool | int]] = {
    "suite": lambda one: one.header.suite,
    "metric": lambda one: one.metric,
    "lower_is_better": lambda one: one.lower_is_better,
    "model": lambda one: one.header.model or "",
    "protocol": lambda one: one.header.protocol_name,
    "norm": lambda one: one.header.norm,
    "precision": lambda one: one.header.precision,
    "tower": lambda one: one.header.tower,
    "defence": lambda one: one.header.defence or "",
    "surrogate": lambda one: one.surrogate or "",
    "surrogate_model": lambda one: one.header.surrogate_model or "",
    "seed": lambda one: one.header.seed,
    "commit": lambda one: one.header.commit or "",
    "runs": lambda one: " ".join(directory.name for directory in one.directories),
}
EXPORTED = (*COLUMNS, *_BESIDE)


def export_frame(runs: Sequence[Run], facts: Facts) -> "pd.DataFrame":
    """The columns of `bench.api.Result.table`, and after them what tells runs apart (`EXPORTED`)."""
    measures = flat.measures(runs, facts)
    if not measures:
        raise UsageError("no run has a score to export; make some with `bench run`")
    made = frame(measures)
    for name, value in _BESIDE.items():
        made[name] = [value(one) for one in measures]
    return made


def _csv(runs: Sequence[Run], facts: Facts, path: Path) -> list[Path]:
    made = export_frame(runs, facts)
    for name in made.columns:
        made[name] = [for_csv(value) if isinstance(value, str) else value for value in made[name]]
    write_atomically(path, made.to_csv(index=False, lineterminator="\n"))
    return [path]


def _parquet(runs: Sequence[Run], facts: Facts, path: Path) -> list[Path]:
    with explained("write", path):
        export_frame(runs, facts).to_parquet(path, index=False)
    return [path]


FORMATS: Mapping[str, Callable[[Sequence[Run], Facts, Path], list[Path]]] = {
    "csv": _csv,
    "parquet": _parquet,
    "lm-eval": partial(write_lm_eval, flat),
}


def export(runs: Sequence[Run], facts: Facts, path: Path, style: str | None = None) -> list[Path]:
    """Write every number of runs, and return the files.

    Args:
        runs: whole or partial; a partial number says so.
        facts: of their suites.
        path: the file; for "lm-eval" a folder.
        style: a name of `FORMATS`. Default: as the file's name ends.

    Raises:
        UsageError: an unknown format, or nothing to write.
        RecordsError: the files cannot be written.
    """
    chosen = style or path.suffix.removeprefix(".")
    if chosen not in FORMATS:
        raise UsageError(f"{path} does not say its format; end it in .csv or .parquet, or give --format")
    with explained("create", path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    return FORMATS[chosen](runs, facts, path)
