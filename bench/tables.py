"""Tables derived from runs: summary rows, one table, its renderings, and the blocks of a Markdown file."""

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.records import RecordsError, Run, RunHeader, read_header, write_atomically
from bench.stats import Estimate, average_interval, ceiling_of, eps_label, groups_of, interval, worst_scores

ROW_KEYS = (
    "suite", "encoder", "task", "dataset", "metric", "attack", "eps_255",
    "value", "low", "high", "n", "run_dir",
)  # fmt: skip
AVERAGE = "average"
BANNER = "Partial results: values marked * are not from a whole run. Do not quote them."
MARK = "*"
ABSENT = "-"
Row = dict[str, Any]


def summary(runs: Iterable[Run]) -> list[Row]:
    """One row, with the keys `ROW_KEYS`, for each run and radius, clean (0.0) first.

    A run without one scored sample at a radius has no row there: what was not measured is not 0.

    Returns:
        Rows; value, low (2.5 %) and high (97.5 %) are on the metric's scale, `n` counts scored samples.
    """
    rows = []
    for run in runs:
        groups = groups_of(run.records)
        for eps in _radii(run.header):
            scores = worst_scores(run.header, run.records, eps)
            if scores:
                estimate = interval(scores, groups, ceiling=ceiling_of(run.header.metric))
                rows.append(_row(run.header, run.header.dataset, eps, estimate, str(run.directory)))
    return rows


def averages(runs: Iterable[Run], task: str = "zeroshot") -> list[Row]:
    """Rows for the plain mean over a task's datasets, of each encoder that was measured on all of them.

    Their dataset is "average", `n` the number of samples in all datasets, and run_dir the directories
    joined by `os.pathsep`. A suite with one dataset has no average.
    """
    families: dict[tuple[str, str, str], dict[str, dict[str, Run]]] = {}
    for run in runs:
        header = run.header
        if header.task == task:
            encoders = families.setdefault((header.suite, header.attack, header.metric), {})
            if header.dataset in encoders.setdefault(header.encoder, {}):
                raise ValueError(f"two runs of {header.encoder} on {header.dataset}: which one to average?")
            encoders[header.encoder][header.dataset] = run
    rows = []
    for encoders in families.values():
        datasets = {dataset for measured in encoders.values() for dataset in measured}
        for measured in encoders.values():
            if len(datasets) > 1 and measured.keys() == datasets:
                rows += _average_rows([measured[dataset] for dataset in sorted(datasets)])
    return rows


def table(rows: Iterable[Mapping[str, Any]], encoders: Sequence[str] = ()) -> pd.DataFrame:
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
    labels = [eps_label(eps) for eps in sorted({row["eps_255"] for row in rows})]
    lines: dict[tuple, Row] = {}
    for row in sorted(rows, key=_sorter(rows, encoders)):
        line = lines.setdefault(tuple(row[key] for key in keys), {"n": []} | {key: row[key] for key in keys})
        line[eps_label(row["eps_255"])] = _cell(row, headers)
        line["n"].append(row["n"])
    for line in lines.values():
        least, most = min(line["n"]), max(line["n"])
        line["n"] = str(least) if least == most else f"{least}-{most}"
    frame = pd.DataFrame(list(lines.values()), columns=[*keys, *labels, "n"]).fillna(ABSENT)
    frame.attrs["lower_is_better"] = sorted({h.task for h in headers.values() if h.worst == "max"})
    return frame


def to_markdown(frame: pd.DataFrame, *, bold_best: bool = False) -> str:
    """GitHub Markdown; `bold_best` sets the best whole value of each column, task and dataset in bold."""
    banner = _banner(frame)
    if bold_best:
        frame = _bold(frame)
    lines = [list(map(str, frame.columns)), ["---"] * len(frame.columns), *_cells(frame)]
    body = "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)
    return (f"> {banner}\n\n" if banner else "") + body + "\n"


def to_csv(frame: pd.DataFrame) -> str:
    """CSV with a header; the banner, if any, is a first line that begins with "#"."""
    banner = _banner(frame)
    return (f"# {banner}\n" if banner else "") + frame.to_csv(index=False, lineterminator="\n")


def to_json(frame: pd.DataFrame) -> str:
    """A JSON object: "banner" (null for whole runs) and "rows"."""
    data = {"banner": _banner(frame), "rows": frame.to_dict(orient="records")}
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def to_text(frame: pd.DataFrame) -> str:
    """Aligned columns for a terminal."""
    banner = _banner(frame)
    lines = [list(map(str, frame.columns)), *_cells(frame)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    body = "\n".join("  ".join(line).rstrip() for line in padded)
    return (f"{banner}\n\n" if banner else "") + body + "\n"


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


def _radii(header: RunHeader) -> list[float]:
    return [0.0, *sorted(eps for eps in set(header.eps_255) if eps > 0)]


def _row(header: RunHeader, dataset: str, eps_255: float, estimate: Estimate, run_dir: str) -> Row:
    identity = (header.suite, header.encoder, header.task, dataset, header.metric, header.attack)
    numbers = (estimate.value, estimate.low, estimate.high, estimate.n)
    return dict(zip(ROW_KEYS, (*identity, eps_255, *numbers, run_dir), strict=True))


def _average_rows(runs: list[Run]) -> list[Row]:
    """The average of one encoder's runs, at the radii that all have."""
    header = runs[0].header
    run_dir = os.pathsep.join(str(run.directory) for run in runs)
    rows = []
    for eps in _radii(header):
        if all(eps in _radii(run.header) for run in runs):
            strata = [(worst_scores(r.header, r.records, eps), groups_of(r.records)) for r in runs]
            if all(scores for scores, _ in strata):
                estimate = average_interval(strata, ceiling=ceiling_of(header.metric))
                rows.append(_row(header, AVERAGE, eps, estimate, run_dir))
    return rows


def _identifying(rows: list[Mapping[str, Any]]) -> list[str]:
    """The fewest leading columns that tell the table's rows apart."""
    for keys in ([], ["attack"], ["attack", "suite"]):
        keys = ["encoder", "task", "dataset", *keys]
        cells = [tuple(row[key] for key in (*keys, "eps_255")) for row in rows]
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
        return *place, order.index(row["encoder"]), row["eps_255"]

    return key


def _cell(row: Mapping[str, Any], headers: Mapping[str, RunHeader]) -> str:
    sources = [headers[part] for part in row["run_dir"].split(os.pathsep)]
    whole = not any(header.partial for header in sources)
    whole = whole and row["n"] == sum(header.n_samples for header in sources)
    return f"{row['value']:.1f} [{row['low']:.1f}, {row['high']:.1f}]" + ("" if whole else MARK)


def _cells(frame: pd.DataFrame) -> list[list[str]]:
    return [[str(cell) for cell in line] for line in frame.itertuples(index=False)]


def _value_columns(frame: pd.DataFrame) -> list[str]:
    return [column for column in frame.columns if column == "clean" or column.endswith("/255")]


def _banner(frame: pd.DataFrame) -> str | None:
    marked = any(str(cell).endswith(MARK) for column in _value_columns(frame) for cell in frame[column])
    return BANNER if marked else None


def _bold(frame: pd.DataFrame) -> pd.DataFrame:
    if "lower_is_better" not in frame.attrs:
        raise ValueError("the frame has lost its attrs: which direction is better is not known")
    result = frame.copy()
    for (task, _), group in frame.groupby(["task", "dataset"], sort=False):
        best = min if task in frame.attrs["lower_is_better"] else max
        for column in _value_columns(frame):
            cells = {i: str(cell) for i, cell in group[column].items() if cell != ABSENT and not cell.endswith(MARK)}
            values = {index: float(cell.split()[0]) for index, cell in cells.items()}
            for index, value in values.items():
                if value == best(values.values()):
                    shown, rest = cells[index].split(" ", 1)
                    result.loc[index, column] = f"**{shown}** {rest}"
    return result


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
