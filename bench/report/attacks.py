"""How attacks went, as the records tell: gradients spent, losses reached, and the way there."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.analysis.cells import AVERAGE, Measure
from bench.records import CLEAN, Record, Run
from bench.records.worst import is_worse

Curve = tuple[list[float], list[float]]  # images tried, mean loss


@dataclass(frozen=True)
class Summary:
    """How the attacks of one run went, by radius: what is left of its records for charts.

    Attributes:
        losses: the loss at which each attack ended, where it is finite.
        curves: the mean over the samples of the highest loss so far, by images tried. Of the first step whose loss
            curve is recorded. A sample that leaves the attack keeps the loss that it left with, so that no curve falls.
        spent: the gradients until each attacked sample was broken, which is when it scores worse than on its clean
            image; infinity for those that stayed robust.
        most: the most gradients spent on one sample.
    """

    losses: dict[float, list[float]] = field(default_factory=dict)
    curves: dict[float, Curve] = field(default_factory=dict)
    spent: dict[float, list[float]] = field(default_factory=dict)
    most: dict[float, int] = field(default_factory=dict)


Summaries = Mapping[Path, Summary]
"""By the directories of their runs."""


def summary(run: Run) -> Summary:
    """How the attacks of a run went."""
    found, clean = Summary(), {r.sample_id: r.score for r in run.records if r.step == CLEAN and r.score is not None}
    attacks: dict[float, list[Record]] = {}
    for record in run.records:
        if record.step != CLEAN:
            attacks.setdefault(record.radius, []).append(record)
    for radius, records in attacks.items():
        if losses := [r.loss for r in records if r.loss is not None and math.isfinite(r.loss)]:
            found.losses[radius] = losses
        watched = [r for r in records if r.loss_curve and r.error is None and r.loss is not None]
        if watched:
            found.curves[radius] = _mean_curve([record for record in watched if record.step == watched[0].step])
        if scored := [record for record in records if record.score is not None]:
            found.spent[radius], found.most[radius] = _spent(scored, clean, run)
    return found


def _spent(attacks: Sequence[Record], clean: Mapping[str, float], run: Run) -> tuple[list[float], int]:
    used: dict[str, int] = {}
    broken: dict[str, float] = {}
    for record in attacks:
        sample = record.sample_id
        used[sample] = used.get(sample, 0) + record.evaluations
        if sample in clean and is_worse(run.header.worst, record.score or 0.0, clean[sample]):
            broken.setdefault(sample, used[sample])
    return [broken.get(sample, math.inf) for sample in used], max(1, *used.values())


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


def _by_encoder(summaries: Summaries, found: Sequence[Measure], order: Mapping[str, int]) -> list[tuple[str, Summary]]:
    """The runs behind some numbers, averages aside, by their encoders and in the order of these."""
    encoders = {m.directories[0]: m.header.encoder for m in found if m.dataset != AVERAGE}
    behind = [(encoders[place], one) for place, one in summaries.items() if place in encoders]
    return sorted(behind, key=lambda pair: order[pair[0]])


def final_losses(
    summaries: Summaries, found: Sequence[Measure], order: Mapping[str, int]
) -> dict[str, dict[float, list[float]]]:
    """Encoder -> radius -> the loss at which each attack ended, where it is finite."""
    losses: dict[str, dict[float, list[float]]] = {}
    for encoder, one in _by_encoder(summaries, found, order):
        for radius, ends in one.losses.items():
            losses.setdefault(encoder, {}).setdefault(radius, []).extend(ends)
    return losses


def loss_curves(summaries: Summaries, found: Sequence[Measure], order: Mapping[str, int]) -> dict[str, Curve]:
    """At the largest radius, by encoder: `Summary.curves`."""
    largest = max(m.radius for m in found)
    behind = _by_encoder(summaries, found, order)
    return {encoder: one.curves[largest] for encoder, one in behind if largest in one.curves}


def spent_gradients(
    summaries: Summaries, found: Sequence[Measure], order: Mapping[str, int]
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """At the largest radius, by encoder: `Summary.spent` and `Summary.most`."""
    largest = max(m.radius for m in found)
    behind = [(encoder, one) for encoder, one in _by_encoder(summaries, found, order) if largest in one.spent]
    return {encoder: one.spent[largest] for encoder, one in behind}, {e: one.most[largest] for e, one in behind}
