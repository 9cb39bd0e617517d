"""The layouts of attacks that are made on surrogate encoders, and of images that should be taken for others."""

from collections.abc import Sequence

from bench.analysis.cells import Measure, measured, shares
from bench.analysis.facts import Facts
from bench.records import Run, RunHeader
from bench.tables.models import clean_once
from bench.tables.table import layout

# Keyword matching rates and success rate of M-Attack (arXiv 2503.10635), in percent
THRESHOLDS = {"keywords": (25, 50, 100), "target-text": (), "target-caption": (30,)}


@layout(
    "Transfer from surrogates",
    "every victim on the images of every surrogate or ensemble, beside its own, random noise and the clean images",
    rows=("dataset", "radius", "source"),
    columns=("scored on",),
)
def surrogates(runs: Sequence[Run], facts: Facts) -> list[Measure]:
    """Transferred images; and of every victim what it does on its own, on noise and clean."""
    moved = [r for r in runs if r.header.surrogate and not (r.header.surrogate_model or r.header.is_floor)]
    victims = {_victim(r.header) for r in moved}
    beside = [r for r in runs if _is_direct(r.header) and _victim(r.header) in victims]
    clean = clean_once([r for r in beside if not r.header.is_floor] or beside or moved)
    return [*clean, *(m for m in measured([*beside, *moved]) if m.radius)]


@layout(
    "Taken for their targets",
    "what is said of images that lead to a target: the mean, and the shares of the published success rates",
    rows=("dataset", "radius", "encoder", "source"),
    columns=("task", "part"),
)
def targets(runs: Sequence[Run], facts: Facts) -> list[Measure]:
    """Runs of tasks that a judge scores."""
    return shares((r for r in runs if r.header.judge), THRESHOLDS)


def _victim(header: RunHeader) -> tuple[object, ...]:
    settings = tuple(sorted(header.victim_settings.items()))
    return (header.suite, header.task, header.dataset, header.encoder, header.model, settings)


def _is_direct(header: RunHeader) -> bool:
    return not (header.surrogate or header.defence or header.images)
