"""What is said about a table's numbers: sentences under it, sample counts, and each number as data."""

from collections.abc import Sequence
from typing import Any

from bench.records import RunHeader
from bench.tables.table import ABSENT, DOUBTFUL, GREY, OTHERWISE, Cell, Label, Table
from tasks.protocol import ASCENDING

NUMBERS = (
    "value",
    "low",
    "high",
    "n",
    "best",
    "whole",
    "failed_checks",
    "data_notes",
    "grey_box",
    "metric",
    "lower_is_better",
    "published",
    "difference",
    "published_differs",
    "runs",
)


def numbers(cell: Cell) -> dict[str, Any]:
    """A cell as data, with the keys `NUMBERS`."""
    measure, estimate, difference = cell.measure, cell.measure.estimate, cell.difference
    return {
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "n": estimate.n,
        "best": cell.best,
        "whole": measure.whole,
        "failed_checks": list(measure.doubts),
        "data_notes": list(dict.fromkeys(note for header in measure.headers for note in header.notes)),
        "grey_box": cell.grey,
        "metric": measure.metric,
        "lower_is_better": measure.lower_is_better,
        "published": cell.published and cell.published.value,
        "difference": None if difference is None else round(difference, 10),
        "published_differs": list(cell.published.differs) if cell.published else [],
        "runs": [str(directory) for directory in measure.directories],
    }


def notes(table: Table, *, bold: bool = True) -> list[str]:
    """Sentences for under a table: metrics, sample counts, what the marks mean."""
    cells = list(table.cells.values())
    found = [_metrics(cells)]
    if len(sizes := {cell.measure.estimate.n for cell in cells}) == 1:
        found.append(f"n = {min(sizes)} everywhere.")
    if bold and any(cell.best for cell in cells):
        found.append("Bold: the best of its kind.")
    if len(cells) < len(table.rows) * len(table.columns):
        found.append(f"{ABSENT}: not measured.")
    if any(cell.grey for cell in cells):
        found.append(f"{GREY}: grey-box, the two models see through the same encoder.")
    if any(cell.published is not None for cell in cells):
        found.append("In braces: the published number, and ours minus it.")
    found += _order_of_radii([header for cell in cells for header in cell.measure.headers])
    differs = dict.fromkeys(text for cell in cells if cell.published for text in cell.published.differs)
    if differs:
        found.append(f"{OTHERWISE}: measured otherwise than the published number: {'; '.join(differs)}.")
    doubts = [f"{name} ({h.encoder}, {h.dataset})" for cell in cells for h in cell.measure.headers for name in h.doubts]
    if doubts:
        found.append(f"{DOUBTFUL}: not credible, these sanity checks failed: {', '.join(dict.fromkeys(doubts))}.")
    said = [f"{h.dataset}: {note}" for cell in cells for h in cell.measure.headers for note in h.notes]
    found += [f"{note}." for note in dict.fromkeys(said)]
    found += table.said
    if table.left_out:
        found.append(f"Left out, since a whole run has the same numbers: {', '.join(table.left_out)}.")
    if table.undefined:
        found.append(f"No number of {'; '.join(table.undefined)}.")
    return found


def _order_of_radii(headers: Sequence[RunHeader]) -> list[str]:
    """What was not attacked, and which runs beside attacked every radius, where they might have spared themselves."""
    if all(header.radii_order == ASCENDING for header in headers):
        return []
    smallest_first = dict.fromkeys(
        f"{h.encoder}, {h.dataset}"
        for h in headers
        if h.radii_order == ASCENDING and len(h.radii) > 1 and not (h.surrogate or h.images or h.is_floor)
    )
    said = ["Where the largest radius came first, what it left as it was is not attacked at smaller ones."]
    return said + ([f"The smallest radius came first in: {'; '.join(smallest_first)}."] if smallest_first else [])


def _metrics(cells: list[Cell]) -> str:
    metrics: dict[str, list[str]] = {}
    for cell in cells:
        metrics.setdefault(cell.measure.metric, []).append(cell.measure.header.task)
    named = "; ".join(f"{', '.join(dict.fromkeys(tasks))}: {metric}" for metric, tasks in metrics.items())
    return f"{named}. With 95 % intervals."


def sample_counts(table: Table) -> tuple[dict[Label, int], dict[Label, str]]:
    """The n of each column, or else of each row (such as "400-500"); neither where one n holds everywhere."""
    by_column: dict[Label, set[int]] = {}
    by_row: dict[Label, set[int]] = {row: set() for row in table.rows}
    for (row, column), cell in table.cells.items():
        by_column.setdefault(column, set()).add(cell.measure.estimate.n)
        by_row[row].add(cell.measure.estimate.n)
    if len(set().union(*by_column.values())) == 1:
        return {}, {}
    if all(len(found) == 1 for found in by_column.values()):
        return {column: min(found) for column, found in by_column.items()}, {}
    return {}, {row: "-".join(map(str, dict.fromkeys((min(n), max(n))))) for row, n in by_row.items()}


def grouped(columns: tuple[Label, ...]) -> list[tuple[str, int]]:
    """The first parts of neighbouring column labels, each with how many columns it spans."""
    groups: list[tuple[str, int]] = []
    for label in columns:
        if groups and groups[-1][0] == label[0]:
            groups[-1] = (label[0], groups[-1][1] + 1)
        else:
            groups.append((label[0], 1))
    return groups
