"""One run over as many pages as it needs: each sample on one of them, and no page too large to be opened on a phone.

A run of few samples has one page. Of a larger one every page shows its samples as plain HTML, and beside the pages lie
small scripts, which a browser reads from disk, where it fetches nothing else: ``NAME.pages.js`` says which samples are
on which page, and ``NAME.2.js`` holds the words of page 2 for a search.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from bench.records import Run
from bench.report.run_page import Line, run_context
from bench.report.site import Site, write_page
from bench.trust.text import for_terminal

MOST_SAMPLES = 1000  # on a page
SHOWN = 40  # characters of an id in the list of pages
MOST_BYTES = 900_000  # of a page's samples, unless one alone has more; all else on a page has some 30 kB


@dataclass(frozen=True)
class Row:
    """One sample as it stands on a page.

    Attributes:
        html: its row of the table.
        entry: what a search knows of it, as JSON: id, outcome, words, anchor.
        pictured: whether the gallery shows it.
    """

    sample_id: str
    outcome: str
    html: str
    entry: str
    pictured: bool = False

    @property
    def size(self) -> int:
        """Bytes that it takes in a file, whichever holds more of it."""
        return max(len(self.html.encode()), len(self.entry.encode()))


def write_run(
    run: Run, lines: Iterable[Line], folder: Path, site: Site, templates: jinja2.Environment, report: dict[str, Any]
) -> None:
    """Write the pages of a run, and note where its samples with pictures are.

    Args:
        run: the run.
        lines: its samples.
        folder: where the pages of runs lie.
        site: names and links.
        templates: of the report.
        report: what all templates need.
    """
    known = report | run_context(run)
    pages = list(in_pages(_rows(lines, site, templates, known)))
    files = [site.page(run.directory, number) for number in range(1, len(pages) + 1)]
    known["files"] = files
    known["outcomes"] = list(dict.fromkeys(row.outcome for rows in pages for row in rows))
    known["total"] = sum(map(len, pages))
    template = templates.get_template("run.html")
    for number, (file, rows) in enumerate(zip(files, pages, strict=True), start=1):
        site.note(run.directory, number, (row.sample_id for row in rows if row.pictured))
        table = Markup("").join(Markup(row.html) for row in rows)
        write_page(folder / f"{file}.html", template.render(known, table=table, number=number, here=len(rows)))
    if len(pages) > 1:
        _write_scripts(folder, files, pages)


def in_pages(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Rows in order, as many on each page as fit; one page of none where there are no rows."""
    page: list[Row] = []
    size = 0
    for row in rows:
        if page and (len(page) == MOST_SAMPLES or size + row.size > MOST_BYTES):
            yield page
            page, size = [], 0
        page.append(row)
        size += row.size
    yield page


def _rows(lines: Iterable[Line], site: Site, templates: jinja2.Environment, known: dict[str, Any]) -> Iterator[Row]:
    made: Any = templates.get_template("row.html").make_module(known)
    for line in lines:
        texts = (line.sample_id, line.outcome, line.words, site.sample_anchor(line.sample_id))
        entry = _as_script([for_terminal(text) for text in texts])
        yield Row(line.sample_id, line.outcome, for_terminal(made.row(line)), entry, line.card is not None)


def _write_scripts(folder: Path, files: Sequence[str], pages: Sequence[Sequence[Row]]) -> None:
    """What is on which page, and the words of each page."""
    listed = [_listed(file, rows) for file, rows in zip(files, pages, strict=True)]
    write_page(folder / f"{files[0]}.pages.js", f"window.runPages = {_as_script(listed)};\n")
    for number, (file, rows) in enumerate(zip(files, pages, strict=True)):
        entries = ",\n".join(row.entry for row in rows)
        write_page(folder / f"{file}.js", f"window.runWords?.({number}, [\n{entries}\n]);\n")


def _listed(file: str, rows: Sequence[Row]) -> dict[str, object]:
    """What the other pages need to know of one."""
    ends = [for_terminal(row.sample_id)[:SHOWN] for row in (rows[0], rows[-1])]
    outcomes = Counter(row.outcome for row in rows)
    return {"file": f"{file}.html", "words": f"{file}.js", "ends": ends, "samples": len(rows), "outcomes": outcomes}


def _as_script(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
