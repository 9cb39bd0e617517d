"""How attacks went, as the records tell: gradients spent, losses reached, and the way there."""

import math
from collections.abc import Iterator, Sequence

from bench.analysis.cells import AVERAGE, Measure
from bench.records import CLEAN, Record, Run
from bench.records.worst import is_worse

Curve = tuple[list[float], list[float]]  # images tried, mean loss


def _runs_of(runs: Sequence[Run], found: Sequence[Measure], order: dict[str, int]) -> list[Run]:
    """The runs behind some numbers, averages aside, in the order of their encoders."""
    places = {m.directories[0] for m in found if m.dataset != AVERAGE}
    return sorted((run for run in runs if run.directory in places), key=lambda run: order[run.header.encoder])


def final_losses(
    runs: Sequence[Run], found: Sequence[Measure], order: dict[str, int]
) -> dict[str, dict[float, list[float]]]:
    """Encoder -> radius -> the loss at which each attack ended, where it is finite."""
    losses: dict[str, dict[float, list[float]]] = {}
    for run in _runs_of(runs, found, order):
        for record in run.records:
            if record.step != CLEAN and record.loss is not None and math.isfinite(record.loss):
                losses.setdefault(run.header.encoder, {}).setdefault(record.radius, []).append(record.loss)
    return losses


def loss_curves(runs: Sequence[Run], found: Sequence[Measure], order: dict[str, int]) -> dict[str, Curve]:
    """At the largest radius, by encoder: the mean over the samples of the highest loss so far, by images tried.

    Of the first step whose loss curve is recorded. A sample that leaves the attack keeps the loss that it left with, so
    that no curve falls.
    """
    largest = max(m.radius for m in found)
    curves: dict[str, Curve] = {}
    for run in _runs_of(runs, found, order):
        at = [r for r in run.records if r.radius == largest and r.loss_curve and r.error is None and r.loss is not None]
        if first := [record for record in at if record.step == at[0].step]:
            curves[run.header.encoder] = _mean_curve(first)
    return curves


def _mean_curve(records: Sequence[Record]) -> Curve:
    curves = [record.loss_curve or () for record in records]
    ends = [
        max(curve[-1], -math.inf if record.loss is None else record.loss)
        for curve, record in zip(curves, records, strict=True)
    ]
    marks = max(map(len, curves))
    ys = [
        sum(curve[k] if k < len(curve) else end for curve, end in zip(curves, ends, strict=True)) / len(records)
        for k in range(marks)
    ]
    tried = max(2 ** (marks - 1), *(1 + record.evaluations for record in records))
    return [*(float(2**k) for k in range(marks)), float(tried)], [*ys, sum(ends) / len(ends)]


def spent_gradients(
    runs: Sequence[Run], found: Sequence[Measure], order: dict[str, int]
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """At the largest radius, by encoder: the gradients until each attacked sample was broken, and the most spent.

    A sample is broken when it scores worse than on its clean image; infinity for those that stayed robust.
    """
    largest = max(m.radius for m in found)
    spent: dict[str, list[float]] = {}
    most: dict[str, int] = {}
    for run in _runs_of(runs, found, order):
        clean = {r.sample_id: r.score for r in run.records if r.step == CLEAN and r.score is not None}
        used: dict[str, int] = {}
        broken: dict[str, float] = {}
        for record in _attacks_at(run, largest):
            sample = record.sample_id
            used[sample] = used.get(sample, 0) + record.evaluations
            if sample in clean and is_worse(run.header.worst, record.score or 0.0, clean[sample]):
                broken.setdefault(sample, used[sample])
        if used:
            spent[run.header.encoder] = [broken.get(sample, math.inf) for sample in used]
            most[run.header.encoder] = max(1, *used.values())
    return spent, most


def _attacks_at(run: Run, radius: float) -> Iterator[Record]:
    return (r for r in run.records if r.step != CLEAN and r.radius == radius and r.score is not None)
