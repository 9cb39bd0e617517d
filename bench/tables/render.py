"""Tables as text, Markdown, LaTeX, CSV, JSON and HTML."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.tables.layouts import Cell, Label, Table

MARK = "*"  # behind a number of a partial run
ABSENT = "-"
_CSV_NUMBERS = (
    "value", "low", "high", "n", "best", "whole", "metric", "lower_is_better", "published", "difference", "runs"
)  # fmt: skip


def render(table: Table, style: str) -> str:
    """A table in one of the styles of `STYLES`, with a newline at its end."""
    return STYLES[style](table)


def text(table: Table) -> str:
    """Aligned columns for a terminal."""
    return _framed(table.banner, align(_grid(table, _plain)), notes(table, bold=False))


def markdown(table: Table) -> str:
    """GitHub Markdown; the best numbers are bold."""
    lines = [[_escaped_markdown(part) for part in line] for line in _grid(table, lambda cell: _plain(cell, "**"))]
    lines.insert(1, ["---"] * len(lines[0]))
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return _framed(table.banner and f"> {table.banner}", body, notes(table))


def latex(table: Table) -> str:
    r"""A ``tabular`` for \usepackage{booktabs}, in a comment of which the notes stand; the best numbers are bold."""
    counts, by_row = sample_counts(table)
    names = [_escaped_latex(name) for name in table.row_names]
    width = len(names) + len(table.columns) + bool(by_row)
    lines = [f"% {line}" for line in (table.banner, rf"{table.title}; \usepackage{{booktabs}}", *notes(table)) if line]
    lines += [rf"\begin{{tabular}}{{{'l' * len(names)}{'c' * (width - len(names))}}}", r"\toprule"]
    lines += _latex_head(table, names, counts, bool(by_row))
    lines.append(r"\midrule")
    previous: Label | None = None
    for row in table.rows:
        if previous is not None and len(row) > 1 and row[0] != previous[0] and table.row_names[0] != "encoder":
            lines.append(r"\midrule")
        parts = [_escaped_latex(part) for part in row]
        parts += [_latex_cell(table.cells.get((row, column))) for column in table.columns]
        parts += [by_row[row]] if by_row else []
        lines.append(" & ".join(parts) + r" \\")
        previous = row
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def as_csv(table: Table) -> str:
    """One line a number: the labels of its row and column, the number with its interval, n, and the runs behind it.

    What was not measured has no line.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*(name.replace(" ", "_") for name in (*table.row_names, *table.column_names)), *_CSV_NUMBERS])
    for row, column, cell in _in_order(table):
        if cell is not None:
            writer.writerow([*row, *column, *(_flat(value) for value in numbers(cell).values())])
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
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


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
    template = environment.get_template("table.html")
    return template.render(
        table=table, notes=notes(table), counts=counts, by_row=by_row, link=link, mark=MARK, absent=ABSENT,
        groups=_groups(table.columns),
    )  # fmt: skip


STYLES: dict[str, Callable[[Table], str]] = {
    "text": text, "markdown": markdown, "latex": latex, "csv": as_csv, "json": as_json, "html": html,
}  # fmt: skip


def numbers(cell: Cell) -> dict[str, Any]:
    """A cell as data."""
    measure, estimate = cell.measure, cell.measure.estimate
    difference = cell.difference
    values = (
        estimate.value, estimate.low, estimate.high, estimate.n, cell.best, measure.whole, measure.header.metric,
        measure.header.worst == "max", cell.published, None if difference is None else round(difference, 10),
        [str(directory) for directory in measure.directories],
    )  # fmt: skip
    return dict(zip(_CSV_NUMBERS, values, strict=True))


def notes(table: Table, *, bold: bool = True) -> list[str]:
    """Sentences for under a table: metrics, sample counts, what the marks mean."""
    cells = list(table.cells.values())
    metrics: dict[str, list[str]] = {}
    for cell in cells:
        metrics.setdefault(cell.measure.header.metric, []).append(cell.measure.header.task)
    named = "; ".join(f"{', '.join(dict.fromkeys(tasks))}: {metric}" for metric, tasks in metrics.items())
    found = [f"{named}. With 95 % intervals."]
    if len(sizes := {cell.measure.estimate.n for cell in cells}) == 1:
        found.append(f"n = {min(sizes)} everywhere.")
    if bold and any(cell.best for cell in cells):
        found.append("Bold: the best of its kind.")
    if len(cells) < len(table.rows) * len(table.columns):
        found.append(f"{ABSENT}: not measured.")
    if any(cell.published is not None for cell in cells):
        found.append("In braces: the published number, and ours minus it.")
    headers = {cell.measure.directories[0]: cell.measure.header for cell in cells}.values()
    doubts = [f"{name} ({h.encoder}, {h.dataset})" for h in headers for name in h.doubts]
    if doubts:
        found.append(f"Not credible: these checks failed: {', '.join(dict.fromkeys(doubts))}.")
    return found


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


def align(lines: Sequence[Sequence[str]]) -> str:
    """Columns of equal width, a rule under the first line."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    ruled = [lines[0], ["-" * width for width in widths], *lines[1:]]
    return "\n".join("  ".join(p.ljust(w) for p, w in zip(line, widths, strict=True)).rstrip() for line in ruled)


def _framed(banner: str | None, body: str, under: Sequence[str]) -> str:
    return "\n\n".join(part for part in (banner, body, " ".join(under)) if part) + "\n"


def _grid(table: Table, show: Callable[[Cell], str]) -> list[list[str]]:
    """The header, then the rows, as texts."""
    counts, by_row = sample_counts(table)
    heads = [" ".join(column) + (f" (n = {counts[column]})" if counts else "") for column in table.columns]
    lines = [[*table.row_names, *heads, *(["n"] if by_row else [])]]
    for row in table.rows:
        cells = (table.cells.get((row, column)) for column in table.columns)
        shown = [ABSENT if cell is None else show(cell) for cell in cells]
        lines.append([*row, *shown, *([by_row[row]] if by_row else [])])
    return lines


def _plain(cell: Cell, bold: str = "") -> str:
    """A number in words: 27.1 [23.5, 30.7], of a partial run 27.1 [23.5, 30.7]*, with the paper's {24.1, +3.0}."""
    estimate, mark = cell.measure.estimate, "" if cell.measure.whole else MARK
    around = bold if cell.best else ""
    beside = "" if cell.published is None else f" {{{cell.published:.1f}, {cell.difference:+.1f}}}"
    return f"{around}{estimate.value:.1f}{around} [{estimate.low:.1f}, {estimate.high:.1f}]{mark}{beside}"


def _in_order(table: Table) -> list[tuple[Label, Label, Cell | None]]:
    return [(row, column, table.cells.get((row, column))) for row in table.rows for column in table.columns]


def _flat(value: Any) -> Any:
    return " ".join(value) if isinstance(value, list) else "" if value is None else value


def _groups(columns: Sequence[Label]) -> list[tuple[str, int]]:
    """The first parts of neighbouring column labels, each with how many columns it spans."""
    groups: list[tuple[str, int]] = []
    for label in columns:
        if groups and groups[-1][0] == label[0]:
            groups[-1] = (label[0], groups[-1][1] + 1)
        else:
            groups.append((label[0], 1))
    return groups


def _escaped_markdown(part: str) -> str:
    return part.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "\n": " ",
}  # fmt: skip


def _escaped_latex(part: str) -> str:
    return "".join(_LATEX.get(character, character) for character in part)


def _latex_head(table: Table, names: list[str], counts: dict[Label, int], with_n: bool) -> list[str]:
    """The header, in two lines with a rule under each group where columns have labels of two parts."""
    heads = [_escaped_latex(column[-1]) + (f" ($n={counts[column]}$)" if counts else "") for column in table.columns]
    last = " & ".join([*names, *heads, *([r"$n$"] if with_n else [])]) + r" \\"
    if len(table.column_names) == 1:
        return [last]
    top, rules, place = [""] * len(names), [], len(names) + 1
    for name, span in _groups(table.columns):
        top.append(rf"\multicolumn{{{span}}}{{c}}{{{_escaped_latex(name)}}}")
        rules.append(rf"\cmidrule(lr){{{place}-{place + span - 1}}}")
        place += span
    return [" & ".join(top + ([""] if with_n else [])) + r" \\", " ".join(rules), last]


def _latex_cell(cell: Cell | None) -> str:
    if cell is None:
        return "--"
    estimate, mark = cell.measure.estimate, "" if cell.measure.whole else "$^*$"
    value = rf"\textbf{{{estimate.value:.1f}}}" if cell.best else f"{estimate.value:.1f}"
    beside = "" if cell.published is None else rf" {{\scriptsize ({cell.published:.1f}, ${cell.difference:+.1f}$)}}"
    return rf"{value}{mark} {{\scriptsize [{estimate.low:.1f}, {estimate.high:.1f}]}}{beside}"
