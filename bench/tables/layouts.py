"""Layouts: which numbers a table shows, and which of their properties make its rows and columns."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from bench.analysis.cells import ALL_TARGETS, AVERAGE, Measure, averaged, by_target, measured
from bench.analysis.published import published
from bench.errors import UsageError
from bench.records import Run
from bench.records.worst import eps_label
from bench.registry import unknown

ENCODERS = ("clip", "tecoa2", "fare2", "tecoa4", "fare4")  # the paper's order; others stand behind
OWN = "itself"
BANNER = "Partial results: values marked * are not from a whole run. Do not quote them."
Label = tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Attributes:
        measure: the number, its interval, n and runs.
        best: the best whole number among the encoders that compete with it.
        published: the paper's number for the same thing.
    """

    measure: Measure
    best: bool = False
    published: float | None = None

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's, on the metric's scale."""
        return None if self.published is None else self.measure.estimate.value - self.published


@dataclass(frozen=True)
class Table:
    """Numbers in rows and columns; a place without a number was not measured.

    Attributes:
        row_names: what the parts of a row's label are, such as ("encoder",).
        column_names: what the parts of a column's label are, such as ("dataset", "radius").
        cells: by row label and column label.
    """

    name: str
    title: str
    row_names: Label
    column_names: Label
    rows: tuple[Label, ...]
    columns: tuple[Label, ...]
    cells: dict[tuple[Label, Label], Cell]

    @property
    def banner(self) -> str | None:
        """What must stand above a table that shows a number of a partial run."""
        return None if all(cell.measure.whole for cell in self.cells.values()) else BANNER


@dataclass(frozen=True)
class Layout:
    """A kind of table.

    Attributes:
        about: one line for ``bench table --list``.
        measure: the numbers it shows, of the runs it is given.
        row_names: properties (`PROPERTIES`) that make a row's label.
        column_names: properties that make a column's label.
        rivals: properties that two numbers must share for one to be better than the other.
    """

    name: str
    title: str
    about: str
    measure: Callable[[Sequence[Run]], list[Measure]]
    row_names: Label
    column_names: Label
    rivals: Label = ("suite", "task", "dataset", "model", "attack", "images from", "target", "radius")


PROPERTIES: dict[str, Callable[[Measure], str]] = {
    "encoder": lambda m: m.header.encoder,
    "task": lambda m: m.header.task,
    "dataset": lambda m: m.dataset,
    "model": lambda m: m.header.model or "",
    "attack": lambda m: m.header.attack,
    "suite": lambda m: m.header.suite,
    "radius": lambda m: eps_label(m.radius, m.header.norm),
    "images from": lambda m: m.surrogate or OWN,
    "target": lambda m: m.target,
}
_OPTIONAL = ("model", "attack", "suite")  # become part of the row where they are needed to tell numbers apart


def _everything(runs: Sequence[Run]) -> list[Measure]:
    return [*measured(runs), *averaged(runs)]


def _vision_language(runs: Sequence[Run]) -> list[Measure]:
    return measured(r for r in runs if r.header.model and r.header.worst == "min" and not r.header.surrogate)


def _zero_shot(runs: Sequence[Run]) -> list[Measure]:
    chosen = [r for r in runs if r.header.task == "zeroshot" and not r.header.surrogate]
    return [*measured(chosen), *averaged(chosen)]


def _targeted(runs: Sequence[Run]) -> list[Measure]:
    return by_target(r for r in runs if r.header.worst == "max" and not r.header.surrogate)


def _transfers(runs: Sequence[Run]) -> list[Measure]:
    """Transferred images, and beside them those made on the encoder itself for the same question."""
    kept = [r for r in runs if r.header.surrogate]
    asked = {(r.header.suite, r.header.task, r.header.dataset) for r in kept}
    own = [r for r in runs if not r.header.surrogate and (r.header.suite, r.header.task, r.header.dataset) in asked]
    encoders = {r.header.encoder for r in kept} | {r.header.surrogate for r in kept}
    return [m for m in measured([*own, *kept]) if m.header.encoder in encoders and m.radius]


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("flat", "All results", "everything: a row an encoder and dataset, a column a radius",
               _everything, ("encoder", "task", "dataset"), ("radius",)),
        Layout("robustness", "Robustness of vision-language models",
               "captioning, VQA and their like by encoder, dataset and radius (Table 1 of the paper)",
               _vision_language, ("encoder",), ("dataset", "radius")),
        Layout("zeroshot", "Zero-shot classification",
               "accuracy by dataset, clean and attacked, with the average (Table 4 of the paper)",
               _zero_shot, ("radius", "encoder"), ("dataset",)),
        Layout("targeted", "Targeted attacks",
               "attack success rate by target text; lower is better (Table 3 of the paper)",
               _targeted, ("radius", "encoder"), ("target",)),
        Layout("transfer", "Transfer of attacks",
               "scores of one encoder on images made on another, beside those made on itself",
               _transfers, ("dataset", "radius", "encoder"), ("images from",)),
    )
}  # fmt: skip


def layout(name: str) -> Layout:
    """A layout by name.

    Raises:
        UsageError: there is none; the nearest is suggested.
    """
    if name not in LAYOUTS:
        raise unknown("layout", name, LAYOUTS)
    return LAYOUTS[name]


def build(name: str, runs: Sequence[Run]) -> Table:
    """Fill a layout from runs.

    Raises:
        UsageError: no run has anything for it; two runs fall in one cell; the runs follow different protocols or
            norms, so that their numbers must not stand side by side.
    """
    chosen = layout(name)
    try:
        measures = chosen.measure(runs)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if not measures:
        raise UsageError(f"no run has results for layout {name!r} ({chosen.about}); make some with `bench run`")
    _refuse_mixtures(measures)
    row_names = _identifying(chosen, measures)
    cells = _cells(chosen, measures, row_names)
    rows, columns = _sorted_labels(measures, row_names), _sorted_labels(measures, chosen.column_names)
    return Table(name, chosen.title, row_names, chosen.column_names, rows, columns, cells)


def available(runs: Sequence[Run]) -> list[str]:
    """The layouts that these runs have numbers for, `flat` first."""
    headers = [run.header for run in runs]
    present = {
        "flat": bool(runs),
        "robustness": any(h.model and h.worst == "min" and not h.surrogate for h in headers),
        "zeroshot": any(h.task == "zeroshot" and not h.surrogate for h in headers),
        "targeted": any(h.worst == "max" and not h.surrogate for h in headers),
        "transfer": any(h.surrogate for h in headers),
    }
    return [name for name in LAYOUTS if present[name]]


def _refuse_mixtures(measures: Sequence[Measure]) -> None:
    """Numbers of different protocols or norms mean different things: they never share a table."""
    for what, of in (("protocol", lambda m: m.header.protocol_name), ("norm", lambda m: m.header.norm)):
        examples: dict[str, str] = {}
        for measure in measures:
            examples.setdefault(of(measure), str(measure.directories[0]))
        if len(examples) > 1:
            listed = " and ".join(f"{place} ({what} {name!r})" for name, place in examples.items())
            raise UsageError(f"runs of different {what}s do not go into one table: {listed}; name the runs to tabulate")


def _label(measure: Measure, names: Label) -> Label:
    return tuple(PROPERTIES[name](measure) for name in names)


def _identifying(chosen: Layout, measures: Sequence[Measure]) -> Label:
    """The layout's row names, and the fewest more that tell all numbers apart.

    Raises:
        UsageError: none do.
    """
    for extra in ((), ("attack",), ("model",), ("suite",), ("attack", "suite"), _OPTIONAL):
        names = (*chosen.row_names, *extra)
        labels = [_label(m, (*names, *chosen.column_names)) for m in measures]
        if len(set(labels)) == len(labels):
            return names
    twice = next(label for label in labels if labels.count(label) > 1)
    places = dict.fromkeys(str(m.directories[0]) for m, label in zip(measures, labels, strict=True) if label == twice)
    raise UsageError(f"two runs for one cell, choose one: {' and '.join(places)}")


def _sorted_labels(measures: Sequence[Measure], names: Label) -> tuple[Label, ...]:
    """The labels that occur, encoders of one thing side by side.

    Encoders stand in the paper's order, radii by size, everything else as it comes, sums and averages last.
    """
    ranks = {name: _ranks(measures, name) for name in names}
    order = sorted(names, key=lambda name: name == "encoder")

    def key(measure: Measure) -> tuple[float, ...]:
        return tuple(ranks[name][PROPERTIES[name](measure)] for name in order)

    return tuple(dict.fromkeys(_label(measure, names) for measure in sorted(measures, key=key)))


def _ranks(measures: Sequence[Measure], name: str) -> dict[str, float]:
    if name == "radius":
        return {PROPERTIES[name](m): m.radius for m in measures}
    known = {"encoder": ENCODERS, "images from": (OWN, *ENCODERS)}.get(name, ())
    values = dict.fromkeys([*known, *(PROPERTIES[name](m) for m in measures)])
    return {value: rank + 1e6 * (value in (AVERAGE, ALL_TARGETS)) for rank, value in enumerate(values)}


def _cells(chosen: Layout, measures: Sequence[Measure], row_names: Label) -> dict[tuple[Label, Label], Cell]:
    """Every number in its place; the best whole one of each set of rivals is marked, if it has a rival."""
    rivals: dict[Label, list[Measure]] = {}
    for measure in measures:
        if measure.whole:
            rivals.setdefault(_label(measure, chosen.rivals), []).append(measure)
    cells = {}
    for measure in measures:
        group = rivals.get(_label(measure, chosen.rivals), [])
        pick = min if measure.header.worst == "max" else max
        best = measure.whole and len(group) > 1 and measure.estimate.value == pick(m.estimate.value for m in group)
        place = (_label(measure, row_names), _label(measure, chosen.column_names))
        cells[place] = replace(Cell(measure), best=best, published=published(measure))
    return cells


def tables(runs: Iterable[Run], names: Iterable[str] | None = None) -> list[Table]:
    """Every table that the runs have numbers for."""
    runs = list(runs)
    return [build(name, runs) for name in (available(runs) if names is None else names)]
