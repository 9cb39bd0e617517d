"""Defences under two protocols: the number that their authors publish, and what is left under the adaptive one."""

from collections.abc import Iterable, Sequence

from attacks.adaptive import PUBLISHED
from bench.analysis.cells import Measure, radii, undefined
from bench.analysis.stats import Estimate, interval, paired
from bench.records import CLEAN, Run
from bench.records.worst import groups_of, scores_at, worst_scores

CLEAN_SCORE, PUBLISHED_SCORE, ADAPTIVE_SCORE, GAP = "clean", "published protocol", "adaptive protocol", "gap"


def defended(runs: Iterable[Run]) -> list[Measure]:
    """Of every defended run, and of undefended ones of the same encoders and datasets, the numbers by protocol."""
    runs = [run for run in runs if undefined(run) is None and run.header.worst == "min" and not run.header.surrogate]
    asked = {_subject(run) for run in runs if run.header.defence}
    reached = {radius for run in runs if run.header.defence for radius in radii(run.header)}
    found: list[Measure] = []
    for run in runs:
        if _subject(run) in asked:
            for radius in radii(run.header)[1:]:
                found += _measures(run, radius) if radius in reached else []
    return found


def _subject(run: Run) -> tuple[str | None, ...]:
    header = run.header
    return header.suite, header.task, header.dataset, header.model, header.encoder


def _measures(run: Run, radius: float) -> list[Measure]:
    """The numbers of one run at a radius; those that all count toward are its robust score."""
    header, groups = run.header, groups_of(run.records)
    clean, left = scores_at(run, 0.0), scores_at(run, radius)
    found = {CLEAN_SCORE: _mean(clean, groups, header.ceiling), ADAPTIVE_SCORE: _mean(left, groups, header.ceiling)}
    if header.defence:
        records = [record for record in run.records if record.step in (CLEAN, PUBLISHED)]
        published = worst_scores(header, records, radius)
        if published and left:
            change = paired(published, left, groups, ceiling=header.ceiling)
            found[PUBLISHED_SCORE] = _mean(published, groups, header.ceiling)
            found[GAP] = Estimate(change.difference, change.low, change.high, change.n)
    order: Sequence[str] = (CLEAN_SCORE, PUBLISHED_SCORE, ADAPTIVE_SCORE, GAP)
    return [
        Measure((header,), (run.directory,), header.dataset, radius, estimate, _whole(run, estimate), counted=name)
        for name in order
        if (estimate := found.get(name)) is not None
    ]


def _mean(scores: dict[str, float], groups: dict[str, str], ceiling: float | None) -> Estimate | None:
    return interval(scores, groups, ceiling=ceiling) if scores else None


def _whole(run: Run, estimate: Estimate) -> bool:
    return run.header.partial is None and estimate.n == run.header.n_samples
