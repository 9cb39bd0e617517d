"""The board as static pages: a list of boards, a page for each, and a page for every entry."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

from markupsafe import Markup

from bench.analysis.cells import Measure
from bench.analysis.stats import Estimate
from bench.board.entry import Placed, read_entry
from bench.board.ranking import Board, Row, Source, boards
from bench.errors import UsageError
from bench.records.worst import eps_label
from bench.report import charts
from bench.report.site import FIRST, GLYPHS, PALETTE, environment, make_room, write_page

TEMPLATES = Path(__file__).parent / "templates"
MARKER = ".bench-board"  # in a folder that a board may be written over
PARTS = ("boards", "entries")


def find_entries(places: Iterable[Path]) -> list[Placed]:
    """The entries in files and folders, in the order of their names: the first submitted should come first.

    Raises:
        UsageError: There is none.
        RecordsError: One is damaged.
    """
    paths: list[Path] = []
    for place in places:
        paths += sorted(place.rglob("*.json")) if place.is_dir() else [place]
    if not paths:
        raise UsageError("no entries there; make one with `bench board submit RUN -o ENTRY.json`")
    return [read_entry(path) for path in paths]


def write_board(entries: Sequence[Placed], directory: Path, *, title: str = "Robustness board") -> Path:
    """Write the board; returns its first page.

    Args:
        entries: Accepted ones, see `bench.board.check`; the first of an encoder stands for it.
        directory: Made if absent; an earlier board there is replaced.
        title: Of the first page.

    Raises:
        UsageError: The folder holds something else.
        RecordsError: It cannot be written.
    """
    make_room(directory, "a board", MARKER, PARTS)
    found = boards(entries)
    templates = environment(TEMPLATES)
    templates.globals["number"] = _number
    context = {"title": title, "version": version("robust-vlm-bench"), "entries": entries, "boards": found}
    first = directory / FIRST
    write_page(first, templates.get_template("boards.html").render(**context, slug=slug))
    for board in found:
        page = templates.get_template("board.html").render(**context, **_board_context(board))
        write_page(directory / "boards" / f"{slug(board)}.html", page)
    for placed in entries:
        page = templates.get_template("entry.html").render(
            **context,
            placed=placed,
            claims=list(zip(placed.entry.claims, placed.headers, strict=True)),
            own=[board for board in found if any(s.placed is placed for row in board.rows for s in sources(row))],
            slug=slug,
        )
        write_page(directory / "entries" / f"{placed.name}.html", page)
    return first


def slug(board: Board) -> str:
    """The file name of a board's page, without its ending: a link to it outlives new entries."""
    words = f"{board.header.task}-{board.header.dataset}-{board.header.norm}-{board.header.protocol_name}"
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in words)
    return f"{plain[:80]}-{sha256('|'.join(board.key).encode(errors='replace')).hexdigest()[:6]}"


def sources(row: Row) -> tuple[Source, ...]:
    """All evidence on a row's encoder, its own first."""
    return (row.own, *row.others)


def _number(estimate: Estimate) -> Markup:
    """A number with its interval."""
    interval = f"[{estimate.low:.1f}, {estimate.high:.1f}]"
    return Markup('<strong>{}</strong> <span class="interval">{}</span>').format(f"{estimate.value:.1f}", interval)


def _board_context(board: Board) -> dict[str, object]:
    places = {row.title: number % PALETTE for number, row in enumerate(board.rows)}
    largest = board.radii[-1] if board.radii else 0.0

    def link(measure: Measure) -> str:
        return f"#{row_anchor(measure.header.encoder)}"

    claimed = [m for row in board.rows for m in _measures(row)]
    drawn = [Markup(charts.curves(claimed, places, link, "curve"))] if board.radii else []
    at = {(m.header.encoder, m.radius): m for m in claimed}
    pairs = [(at[t, 0.0], at[t, largest]) for t in places if (t, 0.0) in at and (t, largest) in at]
    if pairs and largest and board.header.worst == "min":
        drawn.append(Markup(charts.scatter(pairs, places, link, "scatter")))
    return {
        "board": board,
        "drawn": drawn,
        "places": places,
        "glyphs": GLYPHS,
        "sources": sources,
        "row_anchor": row_anchor,
        "data": _for_comparing(board),
    }


def row_anchor(title: str) -> str:
    """Of an encoder's row: links from elsewhere lead there."""
    return "encoder-" + "".join(c if c.isalnum() or c in "-_." else "-" for c in title)


def _measures(row: Row) -> list[Measure]:
    header = replace(row.own.header, encoder=row.title)
    return [
        Measure((header,), (row.own.placed.path,), header.dataset, radius, best.estimate, True)
        for radius, best in row.best.items()
    ]


def _for_comparing(board: Board) -> Markup:
    """What the page's script compares encoders by: sample by sample, at each radius, as JSON inside the page."""
    radii = {f"{radius:g}": radius for radius in (0.0, *board.radii)}
    left = {
        row.title: {name: scores for name, radius in radii.items() if (scores := row.own.left(radius))}
        for row in board.rows
    }
    labels = {name: eps_label(radius, board.header.norm) for name, radius in radii.items()}
    text = json.dumps({"labels": labels, "left": left}).replace("<", "\\u003c").replace("&", "\\u0026")
    return Markup(text)
