"""The end of a run: which errors count, and the sanity checks on all of its records."""

from collections.abc import Iterable
from typing import Any

from attacks.checks import SanityCheck
from bench.config import RunConfig
from bench.records import Record
from bench.records.worst import worst_choices
from bench.running.history import History
from bench.running.sanity_checks import run_checks
from tasks.base import Task


def failures(history: History, task: Task) -> int:
    """Samples whose last word is an error."""
    latest = {record.key: record for record in _without_moot_errors(history, task)}
    return sum(not record.settled for record in latest.values())


def checks_of(config: RunConfig, task: Task, history: History, first: Iterable[SanityCheck]) -> list[dict[str, Any]]:
    """Sanity checks on a finished run, those `first` among them, to be stored with it."""
    return run_checks(config, history.header, task, _without_moot_errors(history, task), first)


def _without_moot_errors(history: History, task: Task) -> list[Record]:
    """All records but the errors of steps that were not taken again, for another one broke the sample."""
    samples = {sample.id: sample for sample in task.dataset.samples}
    scores = {eps: worst_choices(history.header, history.records, eps) for eps in (0.0, *history.header.radii)}

    def is_moot(record: Record) -> bool:
        score = scores[record.radius].get(record.sample_id)
        return score is not None and task.broken(score, samples[record.sample_id])

    if history.header.images is not None:  # every image that was brought is shown
        return history.records
    return [r for r in history.records if r.settled or not is_moot(r)]
