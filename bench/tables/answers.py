"""Layouts for tasks whose answers can be counted: which runs they show, the header's `answer_kind` says."""

from collections.abc import Sequence

from bench.analysis import answers
from bench.analysis.cells import Measure
from bench.analysis.facts import Facts
from bench.records import Run
from bench.tables.table import layout


def _of_kind(runs: Sequence[Run], kind: str) -> list[Run]:
    return [r for r in runs if r.header.answer_kind == kind and not (r.header.surrogate or r.header.is_floor)]


@layout(
    "Yes or no",
    "hallucination (POPE): accuracy, precision, recall, F1 and yes-rate by dataset, radius, victim and encoder",
    rows=("dataset", "radius", "victim", "encoder"),
    columns=("part",),
)
def yes_no(runs: Sequence[Run], facts: Facts) -> list[Measure]:
    """Questions whose answer is yes or no."""
    return answers.yes_no(_of_kind(runs, "yes-no"))


@layout(
    "Multiple choice",
    "reasoning (ScienceQA): accuracy over all questions and over the official categories of some of them",
    rows=("dataset", "radius", "victim", "encoder"),
    columns=("part",),
)
def categories(runs: Sequence[Run], facts: Facts) -> list[Measure]:
    """Questions with options."""
    return answers.by_category(_of_kind(runs, "choice"))
