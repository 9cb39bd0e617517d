"""The chapters of a report's first page: tables and charts of runs that may stand side by side."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from statistics import median

from markupsafe import Markup

from bench.analysis.cells import AVERAGE, Measure
from bench.analysis.facts import Facts
from bench.records import Run
from bench.records.worst import eps_label
from bench.report import attacks, charts
from bench.report.site import Site
from bench.tables import layouts, render
from bench.tables.plot import panels
from bench.tables.table import Label


@dataclass(frozen=True)
class Chart:
    """A chart with its heading.

    Attributes:
        draw: draws it under a name that is unique on the page, in a size.
        name: of this one.
        numbers: encoder and what the chart says of it, shown beside a chart that has its row to itself.
    """

    title: str
    subtitle: str
    draw: Callable[[str, tuple[float, float]], str]
    name: str
    numbers: list[tuple[str, str]]

    def svg(self) -> Markup:
        """For a column of a row, or a phone."""
        return Markup(self.draw(self.name, charts.SIZE))

    def wide(self) -> Markup:
        """For a row of its own."""
        return Markup(self.draw(f"{self.name}-wide", charts.WIDE))


@dataclass(frozen=True)
class Chapter:
    """Runs that may stand in one table: those of one protocol and norm."""

    title: str
    runs: list[Run]
    tables: list[Markup] = field(default_factory=list)
    curves: list[Chart] = field(default_factory=list)
    scatters: list[Chart] = field(default_factory=list)
    loss_curves: list[Chart] = field(default_factory=list)
    robust_shares: list[Chart] = field(default_factory=list)
    losses: list[Chart] = field(default_factory=list)


def parts(runs: Sequence[Run]) -> list[tuple[str, list[Run]]]:
    """Runs by suite, protocol and norm, with a title where there are several: their numbers are never mixed."""
    found: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        h = run.header
        found.setdefault((h.suite, h.protocol_name, h.norm), []).append(run)
    if len(found) == 1:
        return [("", list(runs))]
    return [(f"Suite {suite}, protocol {name}, {norm}", part) for (suite, name, norm), part in found.items()]


def chapter(
    title: str, runs: list[Run], site: Site, facts: Facts, summaries: attacks.Summaries, problems: list[str]
) -> Chapter:
    """Tables and charts of runs that may stand side by side; what a plugin's layout cannot do goes to ``problems``."""
    made = Chapter(title, runs)
    for table in sorted(layouts.tables(runs, facts, problems=problems), key=lambda table: table.name == "flat"):
        made.tables.append(Markup(render.html(table, site.cell_link)))
    direct = [run for run in runs if run.header.surrogate is None]
    order = {encoder: place for place, encoder in enumerate(site.encoders)}
    for table in layouts.tables(direct, facts, ("flat",)):
        for label, found in sorted(panels(table).items(), key=lambda item: (item[0][0], item[0][1] != AVERAGE)):
            _draw(made, label, sorted(found, key=lambda m: order[m.header.encoder]), site, summaries)
    return made


def columns(count: int) -> int:
    """How many columns leave the fewest places of a row of charts empty."""
    return count if count < 3 else 2 if count == 4 else min((3, 4), key=lambda width: -count % width)


def _draw(made: Chapter, label: Label, found: list[Measure], site: Site, summaries: attacks.Summaries) -> None:
    """The charts of one task on one dataset."""
    title = ", ".join(part for part in label if part)
    header, stem = found[0].header, f"c{sha256((made.title + title).encode(errors='replace')).hexdigest()[:6]}"
    places, link, said = site.places, site.link, _said(found)
    if header.radii:
        better = "lower is better" if header.worst == "max" else "higher is better"
        made.curves.append(Chart(title, better, partial(charts.curves, found, places, link), f"{stem}-curve", said))
    if pairs := _pairs(found) if header.worst == "min" else []:
        draw = partial(charts.scatter, pairs, places, link)
        made.scatters.append(Chart(title, "higher is better, both ways", draw, f"{stem}-scatter", said))
    _draw_attacks(made, title, found, site, stem, summaries)


def _draw_attacks(
    made: Chapter, title: str, found: list[Measure], site: Site, stem: str, summaries: attacks.Summaries
) -> None:
    """How the attacks of one task on one dataset went."""
    norm, places = found[0].header.norm, site.places
    largest = eps_label(max(m.radius for m in found), norm)
    if curves := attacks.loss_curves(summaries, found, places):
        said = [(e, f"{ys[-1]:.3g} after {xs[-1]:.0f} images") for e, (xs, ys) in curves.items()]
        draw = partial(charts.loss_curves, curves, places)
        made.loss_curves.append(Chart(title, f"first step at {largest}", draw, f"{stem}-loss-curve", said))
    spent, counts = attacks.spent_gradients(summaries, found, places)
    if len({value for values in spent.values() for value in values} - {math.inf}) > 1:
        said = [(e, f"{100 * sum(map(math.isinf, v)) / len(v):.1f} % still robust") for e, v in spent.items()]
        draw = partial(charts.robust_share, spent, counts, places)
        made.robust_shares.append(Chart(title, f"attacked at {largest}", draw, f"{stem}-robust", said))
    if found[0].dataset != AVERAGE and (losses := attacks.final_losses(summaries, found, places)):
        said = [
            (e, ", ".join(f"{eps_label(r, norm)}: {median(v):.3g}" for r, v in by_radius.items()))
            for e, by_radius in losses.items()
        ]
        draw = partial(charts.boxes, losses, places, norm)
        made.losses.append(Chart(title, "the attacker climbs; medians", draw, f"{stem}-loss", said))


def _said(found: Sequence[Measure]) -> list[tuple[str, str]]:
    """Each encoder's scores in words."""
    by_encoder: dict[str, list[str]] = {}
    for m in found:
        where = eps_label(m.radius, m.header.norm)
        said = f"{m.estimate.value:.1f} {f'at {where}' if m.radius else where}"
        by_encoder.setdefault(m.header.encoder, []).append(said)
    return [(encoder, ", ".join(said)) for encoder, said in by_encoder.items()]


def _pairs(found: Sequence[Measure]) -> list[tuple[Measure, Measure]]:
    """(clean, at the largest radius) of every encoder that has both."""
    largest = max(m.radius for m in found)
    at = {(m.header.encoder, m.radius): m for m in found}
    encoders = dict.fromkeys(m.header.encoder for m in found)
    return [(at[e, 0.0], at[e, largest]) for e in encoders if largest and (e, 0.0) in at and (e, largest) in at]
