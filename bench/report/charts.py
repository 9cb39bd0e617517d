"""Charts as inline SVG: drawn by matplotlib, coloured by the page's style sheet, each point a link to its run."""

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.analysis.cells import Measure
from bench.records.worst import eps_label
from bench.tables.plot import MARKERS, draw_scores
from bench.trust.text import on_one_line

SIZE = (4.1, 2.9)  # inches of 72 px: readable on a phone without scaling
WIDE = (8.6, 3.0)  # of a chart that has its row to itself
INK, RULE = "#fe0001", "#fe0002"  # stand for what the style sheet sets
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "bench",
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,  # names come from outside: a dollar sign is a dollar sign
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.edgecolor": RULE,
    "grid.color": RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "grid.linewidth": 0.6,
}
Link = Callable[[Measure], str]


def series_colour(place: int) -> str:
    """The colour that stands for the style sheet's ``--series-PLACE``."""
    return f"#fe01{place:02x}"


def curves(
    measures: Sequence[Measure], places: Mapping[str, int], link: Link, name: str, size: tuple[float, float] = SIZE
) -> str:
    """Score against radius, a line per encoder, with 95 % intervals.

    Args:
        measures: of one task on one dataset.
        places: encoder -> its place in the palette.
        link: where a point leads.
        name: unique on the page.
        size: of the figure, in inches of 72 px.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(size)
        encoders = list(dict.fromkeys(m.header.encoder for m in measures))
        colours = {encoder: series_colour(places[encoder]) for encoder in encoders}
        draw_scores(axes, measures, colours, {encoder: _marker(places[encoder]) for encoder in encoders}, link)
        titles = {link(m): _title(m) for m in measures}
        return _svg(figure, name, titles, f"Score against radius: {', '.join(encoders)}. The tables hold the numbers.")


def scatter(
    pairs: Sequence[tuple[Measure, Measure]],
    places: Mapping[str, int],
    link: Link,
    name: str,
    size: tuple[float, float] = SIZE,
) -> str:
    """Robust against clean score, a point per encoder, with 95 % intervals both ways and the diagonal of no loss.

    Args:
        pairs: (clean, attacked) of each encoder.
        places: encoder -> its place in the palette.
        link: where a point leads.
        name: unique on the page.
        size: of the figure, in inches of 72 px.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(size)
        header = pairs[0][0].header
        high = header.ceiling or 1.05 * max(m.estimate.high for pair in pairs for m in pair)
        axes.plot([0, high], [0, high], color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        for clean, robust in pairs:
            place = places[clean.header.encoder]
            x, y, colour = clean.estimate, robust.estimate, series_colour(place)
            axes.errorbar(
                x.value,
                y.value,
                xerr=[[x.value - x.low], [x.high - x.value]],
                yerr=[[y.value - y.low], [y.high - y.value]],
                color=colour,
                linewidth=1.2,
                alpha=0.7,
                zorder=2,
                clip_on=False,
            )
            dots = axes.scatter(
                [x.value], [y.value], s=46, color=colour, marker=_marker(place), zorder=3, clip_on=False
            )
            dots.set_urls([link(robust)])
        axes.grid(axis="x")
        axes.set_xlabel(on_one_line(f"{header.metric}, clean"))
        axes.set_ylabel(f"at {eps_label(pairs[0][1].radius, header.norm)}")
        axes.set_xlim(0, 1.03 * high)
        axes.set_ylim(0, 1.03 * high)
        titles = {link(robust): f"{_title(clean)}; {_title(robust)}" for clean, robust in pairs}
        label = "Robust against clean score: " + ", ".join(clean.header.encoder for clean, _ in pairs)
        return _svg(figure, name, titles, label)


def boxes(
    losses: Mapping[str, Mapping[float, Sequence[float]]],
    places: Mapping[str, int],
    norm: str,
    name: str,
    size: tuple[float, float] = SIZE,
) -> str:
    """Distributions of losses: encoder -> radius -> values; boxes are quartiles, whiskers 5 % to 95 %; see `curves`."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(size)
        radii = sorted({eps for by_radius in losses.values() for eps in by_radius})
        width = 0.8 / len(losses)
        for turn, (encoder, by_radius) in enumerate(losses.items()):
            line = {"color": series_colour(places[encoder]), "linewidth": 1.4}
            known = [eps for eps in radii if by_radius.get(eps)]
            axes.boxplot(
                [by_radius[eps] for eps in known],
                positions=[radii.index(eps) + width * (turn - (len(losses) - 1) / 2) for eps in known],
                widths=0.7 * width,
                whis=(5, 95),
                showfliers=False,
                boxprops=line,
                whiskerprops=line,
                capprops=line,
                medianprops={**line, "linewidth": 2.6},
                manage_ticks=False,
            )
        axes.set_xticks(range(len(radii)), [eps_label(eps, norm) for eps in radii])
        axes.set_ylabel("final loss")
        axes.set_xlim(-0.6, len(radii) - 0.4)
        return _svg(figure, name, {}, f"Distribution of the final loss of attacks on {', '.join(losses)}")


def loss_curves(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    places: Mapping[str, int],
    name: str,
    size: tuple[float, float] = SIZE,
) -> str:
    """Loss against images tried, a rising line per encoder.

    Args:
        curves: encoder -> images tried, and the mean of the highest loss so far.
        places: encoder -> its place in the palette.
        name: unique on the page.
        size: of the figure, in inches of 72 px.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(size)
        for encoder, (xs, ys) in curves.items():
            colour = series_colour(places[encoder])
            axes.plot(xs, ys, color=colour, linewidth=1.8)
            axes.scatter(xs[-1:], ys[-1:], s=30, color=colour, marker=_marker(places[encoder]), zorder=3, clip_on=False)
        _count_axis(axes, 1, max(xs[-1] for xs, _ in curves.values()), "images tried")
        axes.set_ylabel("highest loss so far")
        return _svg(figure, name, {}, f"Loss against images tried: {', '.join(curves)}")


def robust_share(
    spent: Mapping[str, Sequence[float]],
    counts: Mapping[str, int],
    places: Mapping[str, int],
    name: str,
    size: tuple[float, float] = SIZE,
) -> str:
    """Share of the attacked samples that are still robust after so many gradients, a falling line per encoder.

    Args:
        spent: encoder -> gradients spent on each sample that was broken; infinity for each that stayed robust.
        counts: encoder -> the most gradients spent on any sample.
        places: encoder -> its place in the palette.
        name: unique on the page.
        size: of the figure, in inches of 72 px.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(size)
        for encoder, values in spent.items():
            broken = sorted(value for value in values if math.isfinite(value))
            left = [100 * (1 - count / len(values)) for count in range(len(broken) + 1)]
            xs, ys = [0.5, *(max(at, 0.5) for at in broken), counts[encoder]], [*left, left[-1]]
            colour = series_colour(places[encoder])
            axes.step(xs, ys, where="post", color=colour, linewidth=1.8)
            axes.scatter(xs[-1:], ys[-1:], s=24, color=colour, marker=_marker(places[encoder]), zorder=3, clip_on=False)
        _count_axis(axes, 0.5, max(counts.values()), "gradients spent")
        axes.set_ylabel("% still robust")
        axes.set_ylim(0, 103)
        return _svg(figure, name, {}, f"Samples still robust against gradients spent: {', '.join(spent)}")


def _count_axis(axes: Axes, low: float, high: float, label: str) -> None:
    axes.set_xscale("log")
    axes.set_xticks([1, 10, 100, 1000, 10000], ["1", "10", "100", "1000", "10000"])
    axes.minorticks_off()
    axes.set_xlim(low, high * 1.1)
    axes.set_xlabel(label)


def _figure(size: tuple[float, float]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    figure.patch.set_visible(False)
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    return figure, axes


def _marker(place: int) -> str:
    return MARKERS[place % len(MARKERS)]


def _title(measure: Measure) -> str:
    e = measure.estimate
    where = eps_label(measure.radius, measure.header.norm)
    return f"{measure.header.encoder}, {where}: {e.value:.1f} [{e.low:.1f}, {e.high:.1f}], n = {e.n}"


def _svg(figure: Figure, name: str, titles: Mapping[str, str], label: str) -> str:
    """The figure as an ``<svg>`` element for the inside of a page."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawn = out.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    head = f'<svg class="chart" role="img" aria-label="{escape(label, quote=True)}" '
    drawn = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', lambda m: f'{head}viewBox="{m[1]}">', drawn, count=1)
    drawn = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', drawn)
    drawn = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", drawn)
    drawn = re.sub(r'<use xlink:href="#([^"]+)"', rf'<use href="#{name}-\1"', drawn)
    drawn = re.sub(r"#fe01([0-9a-f]{2})", lambda m: f"var(--series-{int(m[1], 16)})", drawn)
    drawn = drawn.replace(INK, "currentColor").replace(RULE, "var(--rule)")
    drawn = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px var(--sans)", drawn)

    def linked(match: re.Match[str]) -> str:
        title = f"<title>{escape(titles[match[1]])}</title>" if match[1] in titles else ""
        return f'<a href="{match[1]}" tabindex="-1">{title}'

    return re.sub(r'<a xlink:href="([^"]*)"[^>]*>', linked, drawn)
