"""Layouts: which numbers a table shows, and which of their properties make its rows and columns.

To add one: a function under `layout`, and a line in `bench.registry` (or an entry point "bench.layouts").
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from bench import registry
from bench.analysis.calls import sentences
from bench.analysis.cells import Measure, averaged, by_target, measured, to_captions, undefined
from bench.analysis.defences import defended
from bench.analysis.facts import Facts
from bench.errors import UsageError
from bench.records import Run
from bench.tables.fill import fill
from bench.tables.table import Layout, Table, layout

GROUP = "bench.layouts"
BROKEN = "broken: "


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
    return measured(r for r in _direct(runs) if r.header.model and r.header.worst == "min")


@layout(
    "Zero-shot classification",
    "accuracy by dataset, clean and attacked, with the average (Table 4 of the paper)",
    rows=("radius", "encoder"),
    columns=("dataset",),
)
def zero_shot(runs: Sequence[Run], facts: Facts) -> list[Measure]:
    """Classification by an encoder and its text tower."""
    chosen = [r for r in _direct(runs) if r.header.answer_kind == "class"]
    return [*measured(chosen), *averaged(chosen, facts)]


@layout(
    "Targeted attacks",
    "attack success rate by target text; lower is better; and CIDEr to the images' captions (Table 3 of the paper)",
    rows=("radius", "encoder"),
    columns=("dataset", "target"),
)
def targeted(runs: Sequence[Run], facts: Facts) -> list[Measure]:
    """Attacks that make a model say a given text, and what is left of its captions."""
    chosen = [r for r in _direct(runs) if r.header.worst == "max" and not r.header.judge]
    return [*by_target(chosen, facts), *to_captions(chosen)]


@layout(
    "Transfer of attacks",
    "scores of one encoder on images made on another, beside those made on itself",
    rows=("dataset", "radius", "encoder"),
    columns=("images from",),
)
def transfer(runs: Sequence[Run], facts: Facts) -> list[Measure]:
    """Transferred images, and beside them those made on the encoder itself for the same question."""
    kept = [r for r in runs if r.header.surrogate and not r.header.surrogate_model]
    asked = {(r.header.suite, r.header.task, r.header.dataset) for r in kept}
    encoders = {r.header.encoder for r in kept} | {r.header.surrogate for r in kept}
    own = [
        r
        for r in _direct(runs)
        if (r.header.suite, r.header.task, r.header.dataset) in asked and r.header.encoder in encoders
    ]
    return [m for m in measured([*own, *kept]) if m.radius]


@layout(
    "Images made elsewhere",
    "scores on images that another attack made (bench score), of endpoints and of models on this machine",
    rows=("encoder", "model", "attack"),
    columns=("dataset", "radius"),
)
def brought(runs: Sequence[Run], facts: Facts) -> list[Measure]:
    """Runs that only showed images."""
    return measured(r for r in runs if r.header.images)


@layout(
    "Defences",
    "defended victims under the published and the adaptive protocol, with the gap and whether it can be relied upon",
    rows=("dataset", "radius", "encoder", "defence", "reliability"),
    columns=("counted",),
    rivals=("run", "counted"),
)
def defences(runs: Sequence[Run], facts: Facts) -> list[Measure]:
    """Defences, with the undefended encoders beside them."""
    return defended(runs)


def _direct(runs: Sequence[Run]) -> list[Run]:
    """Those whose images were made here, on the victim itself, undefended, and are no mere noise."""
    made = [r for r in runs if not (r.header.surrogate or r.header.is_floor or r.header.images)]
    return [r for r in made if not r.header.defence]


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
        UsageError: there is no such layout, or a plugin's is broken; no run has anything for it; the runs follow
            different protocols or norms, so that their numbers must not stand side by side.
    """
    if (made := _filled(name, runs, facts)) is None:
        reason = "; ".join(_without_numbers(runs)) or "make some with `bench run`"
        raise UsageError(f"no run has results for layout {name!r} ({find(name).about}); {reason}")
    return made


def tables(
    runs: Iterable[Run], facts: Facts, wanted: Iterable[str] | None = None, problems: list[str] | None = None
) -> list[Table]:
    """Every table that the runs have numbers for, of all layouts or of those wanted, in their order.

    Added to ``problems``: why a plugin's layout is left out, and why a run has no numbers where no table says so.
    """
    runs, problems = list(runs), problems if problems is not None else []
    found = []
    for name in names() if wanted is None else wanted:
        try:
            made = _filled(name, runs, facts)
        except UsageError as error:
            if name in registry.LAYOUTS:
                raise
            problems.append(str(error))
            continue
        if made is not None:
            found.append(made)
    if not found:
        problems += _without_numbers(runs)
    return found


def _filled(name: str, runs: Sequence[Run], facts: Facts) -> Table | None:
    """A layout's table, None if the runs have nothing for it; what a plugin's code raises becomes one line."""
    chosen = find(name)
    if name in registry.LAYOUTS:
        return _table(name, chosen, runs, facts)
    try:
        return _table(name, chosen, runs, facts)
    except UsageError:
        raise
    except Exception as error:  # whatever a third party's code raises, or its words for rows and columns
        raise UsageError(f"the plugin layout {name!r} failed: {type(error).__name__}: {error}") from error


def _table(name: str, chosen: Layout, runs: Sequence[Run], facts: Facts) -> Table | None:
    """The table, which also says which runs of its tasks have no number."""
    if not (measures := chosen.measures(runs, facts)):
        return None
    tasks = {measure.header.task for measure in measures}
    without = _without_numbers(run for run in runs if run.header.task in tasks)
    shown = {directory for measure in measures for directory in measure.directories}
    said = tuple(sentence for run in runs if run.directory in shown for sentence in sentences(run))
    return replace(fill(name, chosen, measures), undefined=without, said=tuple(dict.fromkeys(said)))


def kept_apart(runs: Sequence[Run]) -> list[tuple[str, list[Run]]]:
    """Runs by protocol, norm and judge, whose numbers are never mixed; several parts have titles."""
    found: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        found.setdefault((run.header.protocol_name, run.header.norm, run.header.judge or ""), []).append(run)
    if len(found) == 1:
        return [("", list(runs))]
    return [
        (f"protocol {protocol}, {norm}" + (f", judge {judge}" if judge else ""), part)
        for (protocol, norm, judge), part in found.items()
    ]


def _without_numbers(runs: Iterable[Run]) -> tuple[str, ...]:
    return tuple(reason for run in runs if (reason := undefined(run)) is not None)


def abouts() -> dict[str, str]:
    """What each layout shows, in a line; of a plugin's that cannot be loaded, why."""
    found = {}
    for name in names():
        try:
            found[name] = find(name).about
        except UsageError as error:
            found[name] = f"{BROKEN}{error}"
    return found
