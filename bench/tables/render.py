"""Tables as text, Markdown, LaTeX, CSV, JSON and HTML."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.tables.latex import latex
from bench.tables.notes import NUMBERS, grouped, notes, numbers, sample_counts
from bench.tables.table import ABSENT, Cell, Label, Table
from bench.trust.text import for_csv, for_markdown, on_one_line


def render(table: Table, style: str) -> str:
    """A table in one of the styles of `STYLES`, with a newline at its end."""
    return STYLES[style](table)


def text(table: Table) -> str:
    """Aligned columns for a terminal."""
    said = [on_one_line(note) for note in notes(table, bold=False)]
    return _framed(table.banner, align(_grid(table, on_one_line, _number)), said)


def markdown(table: Table) -> str:
    """GitHub Markdown; the best numbers are bold."""
    body = markdown_table(_grid(table, for_markdown, _bold))
    return _framed(table.banner and f"> {table.banner}", body, [for_markdown(note) for note in notes(table)])


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """Cells as a Markdown table, the first line its head; what comes from outside must be escaped already."""
    ruled = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in ruled)


def as_csv(table: Table) -> str:
    """One line per number: the labels of its row and column, the number with its interval, n, and the runs behind it.

    What was not measured has no line.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*(name.replace(" ", "_") for name in (*table.row_names, *table.column_names)), *NUMBERS])
    for row, column, cell in _in_order(table):
        if cell is not None:
            writer.writerow([_csv_cell(value) for value in (*row, *column, *numbers(cell).values())])
    return out.getvalue()


def as_json(table: Table) -> str:
    """A JSON object; "cells" holds every place of the table, with null for what was not measured."""
    cells = [
        {
            "row": dict(zip(table.row_names, row, strict=True)),
            "column": dict(zip(table.column_names, column, strict=True)),
            "number": numbers(cell) if cell else None,
        }
        for row, column, cell in _in_order(table)
    ]
    data = {"layout": table.name, "title": table.title, "banner": table.banner, "notes": notes(table), "cells": cells}
    return json.dumps(data, indent=1) + "\n"


def html(table: Table, link: Callable[[Cell], str] | None = None) -> str:
    """A ``<table>``, all texts escaped; every part has a class to style it by.

    Args:
        table: the table.
        link: where a number leads; nowhere by default.
    """
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    counts, by_row = sample_counts(table)
    return environment.get_template("table.html").render(
        table=table,
        notes=notes(table),
        counts=counts,
        by_row=by_row,
        link=link,
        absent=ABSENT,
        groups=grouped(table.columns),
    )


STYLES: dict[str, Callable[[Table], str]] = {
    "text": text,
    "markdown": markdown,
    "latex": latex,
    "csv": as_csv,
    "json": as_json,
    "html": html,
}

HEADINGS: dict[str, Callable[[str], str]] = {
    "text": lambda title: f"{on_one_line(title)}\n\n",
    "markdown": lambda title: f"## {for_markdown(title)}\n\n",
    "latex": lambda title: f"% {on_one_line(title)}\n",
}
"""What stands above a table among several; in the other styles nothing does."""


def align(lines: Sequence[Sequence[str]]) -> str:
    """Columns of equal width, a rule under the first line."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    ruled = [lines[0], ["-" * width for width in widths], *lines[1:]]
    return "\n".join("  ".join(p.ljust(w) for p, w in zip(line, widths, strict=True)).rstrip() for line in ruled)


def _framed(banner: str | None, body: str, under: Sequence[str]) -> str:
    return "\n\n".join(part for part in (banner, body, " ".join(under)) if part) + "\n"


def _grid(table: Table, safe: Callable[[str], str], show: Callable[[Cell], str]) -> list[list[str]]:
    """The header, then the rows, as texts; `safe` makes labels harmless, `show` writes a number."""
    counts, by_row = sample_counts(table)
    heads = [safe(" ".join(column)) + (f" (n = {counts[column]})" if counts else "") for column in table.columns]
    lines = [[*map(safe, table.row_names), *heads, *(["n"] if by_row else [])]]
    for row in table.rows:
        cells = (table.cells.get((row, column)) for column in table.columns)
        shown = [ABSENT if cell is None else show(cell) for cell in cells]
        lines.append([*map(safe, row), *shown, *([by_row[row]] if by_row else [])])
    return lines


def _number(cell: Cell, around: str = "") -> str:
    """A number in words: 27.1 [23.5, 30.7], of a partial run 27.1 [23.5, 30.7]*, with the paper's {24.1, +3.0}."""
    estimate = cell.measure.estimate
    beside = f" {{{cell.beside}}}" if cell.beside else ""
    return f"{around}{estimate.value:.1f}{around} [{estimate.low:.1f}, {estimate.high:.1f}]{cell.marks}{beside}"


def _bold(cell: Cell) -> str:
    return _number(cell, "**" if cell.best else "")


def _in_order(table: Table) -> list[tuple[Label, Label, Cell | None]]:
    return [(row, column, table.cells.get((row, column))) for row in table.rows for column in table.columns]


def _csv_cell(value: Any) -> Any:
    value = " ".join(value) if isinstance(value, list) else "" if value is None else value
    return for_csv(value) if isinstance(value, str) else value
