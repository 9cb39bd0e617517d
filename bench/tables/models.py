"""The layout of attacks that are carried from one vision-language model to another."""

from collections.abc import Sequence

from bench.analysis.cells import Measure, measured
from bench.analysis.facts import Facts
from bench.records import Run, RunHeader
from bench.tables.table import layout


@layout(
    "Transfer between models",
    "every model on the images made on every other, beside its own, random noise and the clean images",
    rows=("dataset", "radius", "made on"),
    columns=("victim", "encoder"),
)
def models(runs: Sequence[Run], facts: Facts) -> list[Measure]:
    """Transferred images; and of every model that takes part what it does on its own, on noise and clean."""
    moved = [r for r in runs if r.header.surrogate_model]
    asked = {(r.header.suite, r.header.task, r.header.dataset) for r in moved}
    headers = [r.header for r in moved]
    pairs = {(h.encoder, h.model) for h in headers} | {(h.surrogate or "", h.surrogate_model) for h in headers}

    def beside(header: RunHeader) -> bool:
        question = (header.suite, header.task, header.dataset)
        return not header.surrogate and question in asked and (header.encoder, header.model) in pairs

    own = [r for r in runs if beside(r.header)]
    clean = clean_once([r for r in own if not r.header.is_floor] or own)
    return [*clean, *(m for m in measured([*own, *moved]) if m.radius)]


def clean_once(runs: Sequence[Run]) -> list[Measure]:
    """The clean numbers, once per model: attacks of one model by several means have the same."""
    found = {}
    for m in measured(runs):
        if not m.radius:
            settings = tuple(sorted(m.header.victim_settings.items()))
            found[m.header.suite, m.dataset, m.header.encoder, m.header.model, settings] = m
    return list(found.values())
