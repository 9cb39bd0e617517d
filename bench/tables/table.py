"""What a table is: numbers in rows and columns, and the layout that says which."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.analysis.cells import Measure
from bench.analysis.facts import Facts
from bench.analysis.published import Published
from bench.records import Run

BANNER = "Partial results: values marked * are not from a whole run. Do not quote them."
PARTIAL = "*"  # behind a number of a partial run
DOUBTFUL = "!"  # behind a number of a run of which a sanity check failed
GREY = "^"  # behind a number on images of another model that sees through the same encoder
OTHERWISE = "~"  # behind a published number that was measured under other conditions
ABSENT = "-"
RIVALS = ("suite", "task", "dataset", "model", "attack", "images from", "target", "part", "radius")
Label = tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Attributes:
        measure: the number, its interval, n and runs.
        best: the best whole number among the encoders that compete with it.
        published: the paper's number beside it.
        grey: whether the images come from another model with the same encoder: a grey-box attack.
    """

    measure: Measure
    best: bool = False
    published: Published | None = None
    grey: bool = False

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's, on the metric's scale."""
        return None if self.published is None else self.measure.estimate.value - self.published.value

    @property
    def beside(self) -> str:
        """The published number and the difference, such as "57.1, +2.9", or "57.1, +2.9~" where conditions differ."""
        if self.published is None:
            return ""
        return f"{self.published.value:.1f}, {self.difference:+.1f}{OTHERWISE if self.published.differs else ''}"

    @property
    def marks(self) -> str:
        """What stands behind the number: it is partial, doubtful, of a grey-box attack, or nothing of these."""
        said = (PARTIAL, not self.measure.whole), (DOUBTFUL, bool(self.measure.doubts)), (GREY, self.grey)
        return "".join(mark for mark, holds in said if holds)


@dataclass(frozen=True)
class Layout:
    """A kind of table.

    Attributes:
        title: above the table.
        about: one line for ``bench table --list``.
        measures: the numbers it shows of the runs it is given, and of what their suites say; none where the runs hold
            nothing for it.
        row_names: properties (`bench.tables.fill.PROPERTIES`) that make a row's label.
        column_names: properties that make a column's label.
        rivals: properties that two numbers must share for one to be better than the other.
    """

    title: str
    about: str
    measures: Callable[[Sequence[Run], Facts], list[Measure]]
    row_names: Label
    column_names: Label
    rivals: Label = RIVALS


def layout(
    title: str, about: str, *, rows: Label, columns: Label, rivals: Label = RIVALS
) -> Callable[[Callable[[Sequence[Run], Facts], list[Measure]]], Layout]:
    """Make a layout of the function that chooses its numbers; the arguments are as in `Layout`."""

    def made(measures: Callable[[Sequence[Run], Facts], list[Measure]]) -> Layout:
        return Layout(title, about, measures, rows, columns, rivals)

    return made


@dataclass(frozen=True)
class Table:
    """Numbers in rows and columns; a place without a number was not measured.

    Attributes:
        row_names: what the parts of a row's label are, such as ("encoder",).
        column_names: what the parts of a column's label are, such as ("dataset", "radius").
        cells: by row label and column label.
        left_out: partial runs in whose place a whole one is shown.
        undefined: why some runs have no number here.
        said: what endpoints did beside answering, in sentences.
    """

    name: str
    title: str
    row_names: Label
    column_names: Label
    rows: tuple[Label, ...]
    columns: tuple[Label, ...]
    cells: dict[tuple[Label, Label], Cell]
    left_out: tuple[str, ...] = ()
    undefined: tuple[str, ...] = ()
    said: tuple[str, ...] = ()

    @property
    def banner(self) -> str | None:
        """What must stand above a table that shows a number of a partial run."""
        return None if all(cell.measure.whole for cell in self.cells.values()) else BANNER
