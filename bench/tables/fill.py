"""The engine: numbers to a table, by a layout's properties."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

from attacks.adaptive import OWN_GRADIENT, STAND_IN
from attacks.presets import BROUGHT, TARGET_SAID, TASKLESS
from bench.analysis.cells import ALL_TARGETS, AVERAGE, TO_CAPTIONS, Measure
from bench.analysis.published import published
from bench.errors import UsageError
from bench.records.worst import eps_label
from bench.tables.table import Cell, Label, Layout, Table

ENCODERS = ("clip", "tecoa2", "fare2", "tecoa4", "fare4")  # the paper's order; others stand behind
OWN = "itself"
NO_DEFENCE = "none"
PARTS = (  # of answers and of samples, in the order of their official tables
    *("accuracy", "precision", "recall", "F1", "yes-rate"),
    *("all", "NAT", "SOC", "LAN", "TXT", "IMG", "NO", "G1-6", "G7-12"),
)
NOISE, CLEAN = "random noise", "none (clean)"
_OF_ENCODERS = frozenset(TASKLESS) - {TARGET_SAID, BROUGHT}  # goals that ask encoders alone


def _victim(model: str | None) -> str:
    """A vision-language model's short name: the last part of its place."""
    return (model or "").rstrip("/").rpartition("/")[2]


def _settings(settings: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted(settings.items()))


def _made_on(measure: Measure) -> str:
    """Where the images come from: a model with its encoder, chance, or nowhere if they are clean."""
    header = measure.header
    if not measure.radius:
        return ""
    if header.is_floor:
        return NOISE
    return f"{_victim(header.surrogate_model or header.model)} {header.surrogate or header.encoder}"


def _source(measure: Measure) -> str:
    """What the images were made on: encoders, chance, or nothing if they are clean."""
    if not measure.radius:
        return CLEAN
    return NOISE if measure.header.is_floor else measure.surrogate or OWN


def _reliability(measure: Measure) -> str:
    """Whether a number can be relied upon, and why not; where gradients are masked, whether BPDA had better ones."""
    if not measure.doubts:
        return "reliable"
    passed = {check["name"] for check in measure.header.checks if check["ok"]}
    served = STAND_IN in passed and not set(OWN_GRADIENT).isdisjoint(measure.doubts)
    return f"unreliable ({', '.join(measure.doubts)}){'; stand-in agrees' if served else ''}"


LAST = (AVERAGE, ALL_TARGETS, TO_CAPTIONS)
PROPERTIES: dict[str, Callable[[Measure], str]] = {
    "encoder": lambda m: m.header.encoder,
    "task": lambda m: m.header.task,
    "dataset": lambda m: m.dataset,
    "victim": lambda m: _victim(m.header.model),
    "model": lambda m: m.header.model or "",
    "settings": lambda m: _settings(m.header.victim_settings),
    "settings there": lambda m: _settings(m.header.surrogate_settings),
    "made on": _made_on,
    "source": _source,
    "scored on": lambda m: f"{_victim(m.header.model)} {m.header.encoder}".strip(),
    "judge": lambda m: m.header.judge or "",
    "part": lambda m: m.part,
    "attack": lambda m: m.header.attack,
    "suite": lambda m: m.header.suite,
    "radius": lambda m: eps_label(m.radius, m.header.norm),
    "images from": lambda m: m.surrogate or OWN,
    "target": lambda m: m.target,
    "defence": lambda m: m.header.defence or NO_DEFENCE,
    "counted": lambda m: m.counted,
    "reliability": _reliability,
    "precision": lambda m: m.header.precision,
    "tower": lambda m: m.header.tower,
    "order of radii": lambda m: m.header.radii_order,
    "seed": lambda m: str(m.header.seed),
    "samples": lambda m: str(sum(header.n_samples for header in m.headers)),
    "data": lambda m: m.header.data or "",
    "run": lambda m: " ".join(map(str, m.directories)),
}
# Become part of the row where they are needed to tell numbers apart, the fewest and first that do; a run's directory
# tells all of them apart.
_OPTIONAL = (
    *("victim", "attack", "settings", "settings there", "model", "suite", "precision", "tower", "defence", "data"),
    *("order of radii", "seed", "samples"),
)


def fill(name: str, chosen: Layout, measures: Sequence[Measure]) -> Table:
    """Put numbers in their places.

    Where a whole run and partial ones have a number for one cell, the whole one's is shown; several whole ones stand in
    rows of their own.

    Raises:
        UsageError: the numbers follow different protocols or norms, so that they must not stand side by side.
    """
    _refuse_mixtures(measures)
    shown, hidden = _whole_before_partial(chosen, measures)
    left_out = dict.fromkeys(str(directory) for measure in hidden for directory in measure.directories)
    row_names = _identifying(chosen, shown)
    cells = _cells(chosen, shown, row_names)
    rows, columns = _sorted_labels(shown, row_names), _sorted_labels(shown, chosen.column_names)
    return Table(name, chosen.title, row_names, chosen.column_names, rows, columns, cells, tuple(left_out))


def _refuse_mixtures(measures: Sequence[Measure]) -> None:
    """Numbers of different protocols or norms, or of different judges on one task, never share a table."""
    kinds: dict[str, Callable[[Measure], str]] = {
        "protocol": lambda m: m.header.protocol_name,
        "norm": lambda m: m.header.norm,
    }
    for what, of in kinds.items():
        examples: dict[str, str] = {}
        for measure in measures:
            examples.setdefault(of(measure), str(measure.directories[0]))
        _refuse_several(what, examples)
    for task in dict.fromkeys(measure.header.task for measure in measures if measure.header.judge):
        judged = [measure for measure in measures if measure.header.task == task]
        _refuse_several("judge", {m.header.judge or "none": str(m.directories[0]) for m in judged})


def _refuse_several(what: str, examples: Mapping[str, str]) -> None:
    """Refuse if runs differ in this, given a run by each value."""
    if len(examples) > 1:
        listed = " and ".join(f"{place} ({what} {name!r})" for name, place in examples.items())
        raise UsageError(
            f"runs of different {what}s do not go into one table: {listed}; choose with --where "
            f"{what}={next(iter(examples))}"
        )


def _label(measure: Measure, names: Label) -> Label:
    return tuple(PROPERTIES[name](measure) for name in names)


def _whole_before_partial(chosen: Layout, measures: Sequence[Measure]) -> tuple[list[Measure], list[Measure]]:
    """The numbers to show, and those of partial runs in whose place there is one of a whole run that is else alike."""
    names = tuple(dict.fromkeys((*chosen.row_names, *chosen.column_names, *_OPTIONAL)))
    names = tuple(name for name in names if name != "samples")
    whole = {_label(m, names) for m in measures if m.whole}
    hidden = [m for m in measures if not m.whole and _label(m, names) in whole]
    gone = set(map(id, hidden))
    return [m for m in measures if id(m) not in gone], hidden


def _identifying(chosen: Layout, measures: Sequence[Measure]) -> Label:
    """The layout's row names, and the fewest more that tell all numbers apart."""
    growing = (_OPTIONAL[:end] for end in range(3, len(_OPTIONAL) + 1))
    for extra in ((), *((name,) for name in _OPTIONAL), *combinations(_OPTIONAL, 2), *growing):
        taken = (*chosen.row_names, *chosen.column_names)
        more = [name for name in extra if name not in taken]
        names = (*(name for name in more if name == "victim"), *chosen.row_names, *(n for n in more if n != "victim"))
        labels = {_label(m, (*names, *chosen.column_names)) for m in measures}
        if len(labels) == len(measures):
            return names
    return (*chosen.row_names, "run")


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
    orders = {"encoder": ENCODERS, "images from": (OWN, *ENCODERS), "part": PARTS, "made on": ("", NOISE)}
    orders["source"] = (CLEAN, NOISE, OWN, *ENCODERS)
    known = orders.get(name, ())
    values = dict.fromkeys([*known, *(PROPERTIES[name](m) for m in measures)])
    return {value: rank + 1e6 * (value in LAST) for rank, value in enumerate(values)}


def _cells(chosen: Layout, measures: Sequence[Measure], row_names: Label) -> dict[tuple[Label, Label], Cell]:
    """Every number in its place; the best whole one of each set of rivals is marked, if it has a rival."""
    rivals: dict[Label, list[Measure]] = {}
    for measure in measures:
        if measure.whole:
            rivals.setdefault(_label(measure, chosen.rivals), []).append(measure)
    cells = {}
    for measure in measures:
        group = rivals.get(_label(measure, chosen.rivals), [])
        pick = min if measure.lower_is_better else max
        ranked = measure.whole and measure.ranked and len(group) > 1
        best = ranked and measure.estimate.value == pick(m.estimate.value for m in group)
        place = (_label(measure, row_names), _label(measure, chosen.column_names))
        cells[place] = Cell(measure, best, published(measure), _is_grey(measure))
    return cells


def _is_grey(measure: Measure) -> bool:
    """Whether images were made on the very encoder of the victim, but not on the whole of it alone."""
    header = measure.header
    if not measure.radius or header.encoder not in header.surrogates:
        return False
    if header.surrogate_model is not None or len(header.surrogates) > 1:
        return True
    return header.model is not None and all(step.goal in _OF_ENCODERS for step in header.steps)
