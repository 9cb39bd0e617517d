"""Layouts: which numbers a table shows, and which of their properties make its rows and columns.

To add one: a function under `layout`, and a line in `bench.registry` (or an entry point "bench.layouts").
"""

from collections.abc import Iterable, Sequence

from bench import registry
from bench.analysis.cells import Measure, averaged, by_target, measured
from bench.analysis.facts import Facts
from bench.errors import UsageError
from bench.records import Run
from bench.tables.fill import fill
from bench.tables.table import Layout, Table, layout

GROUP = "bench.layouts"


@layout(
    "All results",
    "everything: a row per encoder and dataset, a column per radius",
    rows=("encoder", "task", "dataset"),
    columns=("radius",),
)
def flat(runs: Sequence[Run], facts: Facts) -> list[Measure]:
    """Everything."""
    return [*measured(runs), *averaged(runs, facts)]


@layout(
    "Robustness of vision-language models",
    "captioning, VQA and their like by encoder, dataset and radius (Table 1 of the paper)",
    rows=("encoder",),
    columns=("dataset", "radius"),
)
def robustness(runs: Sequence[Run], facts: Facts) -> list[Measure]:
    """Untargeted attacks on vision-language models."""
    return measured(r for r in runs if r.header.model and r.header.worst == "min" and not r.header.surrogate)


@layout(
    "Zero-shot classification",
    "accuracy by dataset, clean and attacked, with the average (Table 4 of the paper)",
    rows=("radius", "encoder"),
    columns=("dataset",),
)
def zero_shot(runs: Sequence[Run], facts: Facts) -> list[Measure]:
    """Classification by an encoder and its text tower."""
    chosen = [r for r in runs if r.header.task == "zeroshot" and not r.header.surrogate]
    return [*measured(chosen), *averaged(chosen, facts)]


@layout(
    "Targeted attacks",
    "attack success rate by target text; lower is better (Table 3 of the paper)",
    rows=("radius", "encoder"),
    columns=("target",),
)
def targeted(runs: Sequence[Run], facts: Facts) -> list[Measure]:
    """Attacks that make a model say a given text."""
    return by_target((r for r in runs if r.header.worst == "max" and not r.header.surrogate), facts)


@layout(
    "Transfer of attacks",
    "scores of one encoder on images made on another, beside those made on itself",
    rows=("dataset", "radius", "encoder"),
    columns=("images from",),
)
def transfer(runs: Sequence[Run], facts: Facts) -> list[Measure]:
    """Transferred images, and beside them those made on the encoder itself for the same question."""
    kept = [r for r in runs if r.header.surrogate]
    asked = {(r.header.suite, r.header.task, r.header.dataset) for r in kept}
    encoders = {r.header.encoder for r in kept} | {r.header.surrogate for r in kept}
    own = [
        r
        for r in runs
        if not r.header.surrogate
        and (r.header.suite, r.header.task, r.header.dataset) in asked
        and r.header.encoder in encoders
    ]
    return [m for m in measured([*own, *kept]) if m.radius]


def names() -> list[str]:
    """The layouts that there are, built-in ones first."""
    return registry.names(GROUP)


def find(name: str) -> Layout:
    """A layout by name.

    Raises:
        UsageError: there is none, the nearest is suggested; or a plugin's is no layout.
    """
    found = registry.resolve(GROUP, name)
    if not isinstance(found, Layout):
        raise UsageError(f"the plugin layout {name!r} is a {type(found).__name__}, not a bench.tables.table.Layout")
    return found


def build(name: str, runs: Sequence[Run], facts: Facts) -> Table:
    """Fill a layout from runs.

    Raises:
        UsageError: no run has anything for it; the runs follow different protocols or norms, so that their numbers must
            not stand side by side.
    """
    chosen = find(name)
    if not (measures := chosen.measures(runs, facts)):
        raise UsageError(f"no run has results for layout {name!r} ({chosen.about}); make some with `bench run`")
    return fill(name, chosen, measures)


def tables(runs: Iterable[Run], facts: Facts, wanted: Iterable[str] | None = None) -> list[Table]:
    """Every table that the runs have numbers for, of all layouts or of those wanted, in their order."""
    runs = list(runs)
    found = []
    for name in names() if wanted is None else wanted:
        chosen = find(name)
        if measures := chosen.measures(runs, facts):
            found.append(fill(name, chosen, measures))
    return found
