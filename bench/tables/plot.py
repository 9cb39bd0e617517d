"""Score against radius, drawn by matplotlib: for a notebook as it is, for the report in its page's colours."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from bench.analysis.cells import Measure
from bench.records.worst import eps_label
from bench.tables.table import Label, Table
from bench.trust.text import on_one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")


def panels(table: Table) -> dict[Label, list[Measure]]:
    """The numbers of a flat table by what its rows are of beside the encoder: task, dataset, and what tells rows apart.

    Within a panel an encoder has one number per radius.
    """
    found: dict[Label, list[Measure]] = {}
    for row in table.rows:
        own = [cell.measure for column in table.columns if (cell := table.cells.get((row, column)))]
        others = zip(table.row_names, row, strict=True)
        found.setdefault(tuple(part for name, part in others if name != "encoder"), []).extend(own)
    return found


def score_against_radius(table: Table) -> "Figure":
    """A panel per task and dataset of a flat table; a line per encoder, with 95 % intervals."""
    import matplotlib.pyplot as plt

    found = panels(table)
    encoders = dict.fromkeys(m.header.encoder for measures in found.values() for m in measures)
    colours = {encoder: f"C{place % 10}" for place, encoder in enumerate(encoders)}
    size = (1 + 3.6 * len(found), 3.4)
    with plt.rc_context({"text.parse_math": False}):  # names come from outside: a dollar sign is a dollar sign
        figure, grid = plt.subplots(1, len(found), squeeze=False, layout="constrained", figsize=size)
        plt.close(figure)  # who asks for the figure shows it: a notebook would show it twice
        for axes, (label, measures) in zip(grid[0], found.items(), strict=True):
            draw_scores(axes, measures, colours)
            axes.set_title(on_one_line(", ".join(part for part in label if part)), fontsize="medium")
            axes.grid(axis="y", alpha=0.3)
        grid[0][0].legend(fontsize="small", frameon=False)
    return figure


def draw_scores(
    axes: "Axes",
    measures: Sequence[Measure],
    colours: Mapping[str, str],
    markers: Mapping[str, str] | None = None,
    link: Callable[[Measure], str] | None = None,
) -> None:
    """A line per encoder on axes of one task and dataset.

    Args:
        axes: where to draw.
        measures: of one task on one dataset.
        colours: by encoder.
        markers: by encoder; in turn by default.
        link: where a point leads; nowhere by default.
    """
    radii = sorted({m.radius for m in measures})
    encoders = list(dict.fromkeys(m.header.encoder for m in measures))
    step = min((b - a for a, b in pairwise(radii)), default=1.0)
    for turn, encoder in enumerate(encoders):
        own = sorted((m for m in measures if m.header.encoder == encoder), key=lambda m: m.radius)
        shift = 0.035 * step * (turn - (len(encoders) - 1) / 2)  # so that intervals do not hide each other
        xs, estimates = [m.radius + shift for m in own], [m.estimate for m in own]
        ys = [e.value for e in estimates]
        errors = [[e.value - e.low for e in estimates], [e.high - e.value for e in estimates]]
        marker = markers[encoder] if markers else MARKERS[turn % len(MARKERS)]
        colour = colours[encoder]
        axes.errorbar(
            xs,
            ys,
            yerr=errors,
            color=colour,
            label=on_one_line(encoder),
            linewidth=1.8,
            elinewidth=1.2,
            capsize=2.5,
            zorder=2,
        )
        dots = axes.scatter(xs, ys, s=30, color=colour, marker=marker, zorder=3, clip_on=False)
        if link:
            dots.set_urls([link(m) for m in own])
    axes.set_xticks(radii, [eps_label(radius, measures[0].header.norm) for radius in radii])
    axes.margins(x=0.08)
    axes.set_xlabel("radius")
    axes.set_ylabel(on_one_line(measures[0].header.metric))
    span_scores(axes, measures)


def span_scores(axes: "Axes", measures: Sequence[Measure]) -> None:
    """Scores from 0, up to the metric's ceiling if it has one."""
    axes.set_ylim(bottom=0)
    if (ceiling := measures[0].header.ceiling) is not None:
        axes.set_ylim(0, 1.03 * ceiling)
        axes.set_yticks([part * ceiling / 4 for part in range(5)])
