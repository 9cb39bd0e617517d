"""A layout from outside: what each dataset's attacks leave of the clean score, a column per encoder."""

from collections.abc import Sequence

from bench.analysis.cells import Measure, measured
from bench.analysis.facts import Facts
from bench.records import Run
from bench.tables.table import layout


@layout(
    "By dataset", "a row per dataset and radius, a column per encoder", rows=("dataset", "radius"), columns=("encoder",)
)
def by_dataset(runs: Sequence[Run], facts: Facts) -> list[Measure]:
    """Every attack that is no transfer."""
    return measured(run for run in runs if run.header.surrogate is None)
