"""The flat table as rows and as a DataFrame, and the generated blocks of a Markdown file."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.analysis.cells import AVERAGE, Measure, averaged, measured
from bench.records import RecordsError, Run, RunHeader, read_header, write_atomically
from bench.records.worst import eps_label
from bench.tables.layouts import BANNER
from bench.tables.render import ABSENT, MARK, align

if TYPE_CHECKING:
    import pandas as pd

ROW_KEYS = (
    "suite", "encoder", "task", "dataset", "metric", "attack", "radius",
    "value", "low", "high", "n", "run_dir",
)  # fmt: skip
Row = dict[str, Any]


def summary(runs: Iterable[Run]) -> list[Row]:
    """One row, with the keys `ROW_KEYS`, for each run and radius, clean (0.0) first.

    A run without one scored sample at a radius has no row there: what was not measured is not 0.

    Returns:
        Rows; value, low (2.5 %) and high (97.5 %) are on the metric's scale, `n` counts scored samples.
    """
    return [_row(measure) for measure in measured(runs)]


def averages(runs: Iterable[Run], task: str = "zeroshot") -> list[Row]:
    """Rows for the plain mean over a task's datasets, of each encoder that was measured on all of them.

    Their dataset is "average", `n` the number of samples in all datasets, and run_dir the directories
    joined by `os.pathsep`. A suite with one dataset has no average.
    """
    return [_row(measure) for measure in averaged(runs, task)]


def table(rows: Iterable[Mapping[str, Any]], encoders: Sequence[str] = ()) -> "pd.DataFrame":
    """A row for each encoder, task, dataset; columns clean, 2/255, ... with cells like "83.2 [77.4, 87.7]".

    Rows of one task and dataset stand together, their encoders in the order of `encoders` (others behind,
    as they come). Columns "attack" and "suite" appear only where they are needed to tell rows apart. A cell
    ends in "*" where its run is partial or does not score all its samples: that is looked up in run_dir.
    `attrs["lower_is_better"]` lists the tasks where the attacker pushes the score up.

    Raises:
        ValueError: If there are no rows, or two rows fall in the same cell.
        RecordsError: If a row's run directory cannot be read: a number without provenance is not a number.
    """
    rows = list(rows)
    if not rows:
        raise ValueError("no rows: there is nothing to tabulate")
    keys = _identifying(rows)
    headers = {part: read_header(part) for row in rows for part in row["run_dir"].split(os.pathsep)}
    norms = {part: header.norm for part, header in headers.items()}
    radii = sorted({(row["radius"], norms[row["run_dir"].split(os.pathsep)[0]]) for row in rows})
    labels = list(dict.fromkeys(eps_label(eps, norm) for eps, norm in radii))
    lines: dict[tuple, Row] = {}
    for row in sorted(rows, key=_sorter(rows, encoders)):
        line = lines.setdefault(tuple(row[key] for key in keys), {"n": []} | {key: row[key] for key in keys})
        line[eps_label(row["radius"], norms[row["run_dir"].split(os.pathsep)[0]])] = _cell(row, headers)
        line["n"].append(row["n"])
    for line in lines.values():
        least, most = min(line["n"]), max(line["n"])
        line["n"] = str(least) if least == most else f"{least}-{most}"
    import pandas as pd

    frame = pd.DataFrame(list(lines.values()), columns=[*keys, *labels, "n"]).fillna(ABSENT)
    frame.attrs["lower_is_better"] = sorted({h.task for h in headers.values() if h.worst == "max"})
    return frame


def to_text(frame: "pd.DataFrame") -> str:
    """Aligned columns for a terminal."""
    cells = [[str(cell) for cell in line] for line in frame.itertuples(index=False)]
    marked = any(cell.endswith(MARK) for line in cells for cell in line)
    return (f"{BANNER}\n\n" if marked else "") + align([list(map(str, frame.columns)), *cells]) + "\n"


def write_block(markdown_file: Path | str, name: str, content: str) -> None:
    """Puts `content` between the lines `<!-- bench:NAME -->` and `<!-- /bench:NAME -->` of a file.

    Raises:
        ValueError: If `content` is empty or carries the banner of a partial result, or the file does not have
            each of the two lines once, in this order.
        RecordsError: If the file cannot be read or written.
    """
    if not content.strip():
        raise ValueError(f"block {name} would be empty")
    if BANNER in content:
        raise ValueError(f"block {name} holds partial results; only whole runs enter a committed table")
    before, _, after = _find_block(Path(markdown_file), name)
    write_atomically(Path(markdown_file), before + content.strip() + after)


def stale(markdown_file: Path | str, name: str, content: str) -> bool:
    """Whether the block differs from `content`; raises as `write_block` does."""
    return _find_block(Path(markdown_file), name)[1].strip() != content.strip()


def _row(measure: Measure) -> Row:
    h, e = measure.header, measure.estimate
    identity = (h.suite, h.encoder, h.task, measure.dataset, h.metric, h.attack, measure.radius)
    place = os.pathsep.join(map(str, measure.directories))
    return dict(zip(ROW_KEYS, (*identity, e.value, e.low, e.high, e.n, place), strict=True))


def _identifying(rows: list[Mapping[str, Any]]) -> list[str]:
    """The fewest leading columns that tell the table's rows apart."""
    for keys in ([], ["attack"], ["attack", "suite"]):
        keys = ["encoder", "task", "dataset", *keys]
        cells = [tuple(row[key] for key in (*keys, "radius")) for row in rows]
        if len(set(cells)) == len(cells):
            return keys
    twice = next(cell for cell in cells if cells.count(cell) > 1)
    places = [row["run_dir"] for row, cell in zip(rows, cells, strict=True) if cell == twice]
    raise ValueError(f"two runs for one cell, choose one: {' and '.join(places)}")


def _sorter(rows: list[Mapping[str, Any]], encoders: Sequence[str]):
    """Sort key: task and dataset as they come (the average last), then encoder."""
    tasks, datasets = ([*dict.fromkeys(row[key] for row in rows)] for key in ("task", "dataset"))
    order = [*dict.fromkeys([*encoders, *(row["encoder"] for row in rows)])]

    def key(row: Mapping[str, Any]) -> tuple:
        dataset = row["dataset"]
        place = (tasks.index(row["task"]), dataset == AVERAGE, datasets.index(dataset))
        return *place, order.index(row["encoder"]), row["radius"]

    return key


def _cell(row: Mapping[str, Any], headers: Mapping[str, RunHeader]) -> str:
    sources = [headers[part] for part in row["run_dir"].split(os.pathsep)]
    whole = not any(header.partial for header in sources)
    whole = whole and row["n"] == sum(header.n_samples for header in sources)
    return f"{row['value']:.1f} [{row['low']:.1f}, {row['high']:.1f}]" + ("" if whole else MARK)


def _find_block(path: Path, name: str) -> tuple[str, str, str]:
    """The file's text up to, inside and from the end of the block."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecordsError(f"cannot read {path}: {error.strerror}") from error
    begin, end = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
    found = re.search(f"{re.escape(begin)}\n(.*?)(?=\n?{re.escape(end)})", text, re.DOTALL)
    if found is None or text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"{path} must have the lines {begin} and {end} once each, in this order")
    return text[: found.start(1)], found[1], "\n" + text[found.end(1) :].lstrip("\n")
