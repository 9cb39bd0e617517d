r"""Tables as LaTeX: a ``tabular`` for \usepackage{booktabs}."""

from bench.tables.notes import grouped, notes, sample_counts
from bench.tables.table import DOUBTFUL, GREY, PARTIAL, Cell, Label, Table
from bench.trust.text import for_latex, on_one_line

MARKS = {PARTIAL: "$^*$", DOUBTFUL: "$^!$", GREY: r"$^{\wedge}$"}


def latex(table: Table) -> str:
    """A ``tabular``, in a comment above which the notes stand; the best numbers are bold."""
    counts, by_row = sample_counts(table)
    names = [for_latex(name) for name in table.row_names]
    width = len(names) + len(table.columns) + bool(by_row)
    comments = (table.banner, rf"{table.title}; \usepackage{{booktabs}}", *notes(table))
    lines = [f"% {on_one_line(line)}" for line in comments if line]
    lines += [rf"\begin{{tabular}}{{{'l' * len(names)}{'c' * (width - len(names))}}}", r"\toprule"]
    lines += _head(table, names, counts, bool(by_row))
    lines.append(r"\midrule")
    previous: Label | None = None
    for row in table.rows:
        if previous is not None and len(row) > 1 and row[0] != previous[0] and table.row_names[0] != "encoder":
            lines.append(r"\midrule")
        parts = [for_latex(part) for part in row]
        parts += [_cell(table.cells.get((row, column))) for column in table.columns]
        parts += [by_row[row]] if by_row else []
        lines.append(" & ".join(parts) + r" \\")
        previous = row
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _head(table: Table, names: list[str], counts: dict[Label, int], with_n: bool) -> list[str]:
    """The header, in two lines with a rule under each group where columns have labels of two parts."""
    heads = [for_latex(column[-1]) + (f" ($n={counts[column]}$)" if counts else "") for column in table.columns]
    last = " & ".join([*names, *heads, *([r"$n$"] if with_n else [])]) + r" \\"
    if len(table.column_names) == 1:
        return [last]
    top, rules, place = [""] * len(names), [], len(names) + 1
    for name, span in grouped(table.columns):
        top.append(rf"\multicolumn{{{span}}}{{c}}{{{for_latex(name)}}}")
        rules.append(rf"\cmidrule(lr){{{place}-{place + span - 1}}}")
        place += span
    return [" & ".join(top + ([""] if with_n else [])) + r" \\", " ".join(rules), last]


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return "--"
    estimate = cell.measure.estimate
    marks = "".join(MARKS[mark] for mark in cell.marks)
    value = rf"\textbf{{{estimate.value:.1f}}}" if cell.best else f"{estimate.value:.1f}"
    return rf"{value}{marks} {{\scriptsize [{estimate.low:.1f}, {estimate.high:.1f}]}}{_beside(cell)}"


def _beside(cell: Cell) -> str:
    """The published number and the difference, in small type; nothing where none is published."""
    if cell.published is None:
        return ""
    differs = r"^{\sim}" if cell.published.differs else ""
    return rf" {{\scriptsize ({cell.published.value:.1f}, ${cell.difference:+.1f}{differs}$)}}"
