"""Names and links of a report's pages, and what turns templates into pages."""

import os
import shutil
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from bench.analysis.cells import AVERAGE, Measure
from bench.errors import UsageError
from bench.records import Record, Run
from bench.records.files import explained, open_inside, unlinked
from bench.records.worst import eps_label
from bench.tables.fill import ENCODERS
from bench.tables.table import Cell
from bench.trust.places import safe_name
from bench.trust.text import for_terminal

TEMPLATES = Path(__file__).parent / "templates"
FIRST = "index.html"
PALETTE = 8
GLYPHS = "●■◆▲▼✚✖★"


class Site:
    """Names and links of a report's pages."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = list(runs)
        encoders = dict.fromkeys(run.header.encoder for run in runs)
        self.encoders = [e for e in ENCODERS if e in encoders] + [e for e in encoders if e not in ENCODERS]
        fixed = {encoder: place for place, encoder in enumerate(ENCODERS)}
        others = [e for e in self.encoders if e not in fixed]
        self.places = fixed | {e: (len(fixed) + i) % PALETTE for i, e in enumerate(others)}
        self.protocols = {run.header.protocol_name for run in runs}
        self._later: dict[tuple[Path, str], int] = {}  # samples with pictures, where not on their run's first page

    def page(self, directory: Path, number: int = 1) -> str:
        """The file name of a run's page, without its ending: legible, and unique by a digest of the whole path."""
        plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_.+") else "-" for c in directory.name)
        return f"{plain[:80]}-{_short_digest(str(directory), 6)}" + (f".{number}" if number > 1 else "")

    def note(self, directory: Path, number: int, samples: Iterable[str]) -> None:
        """Remember which samples are on a later page of their run."""
        if number > 1:
            self._later |= {(directory, sample): number for sample in samples}

    def link(self, measure: Measure) -> str:
        """Where a number leads: to its run's page, or to the list of runs that an average is of."""
        if measure.dataset == AVERAGE:
            return f"#{self.average_anchor(measure)}"
        return f"runs/{self.page(measure.directories[0])}.html#{self.radius_anchor(measure.radius)}"

    def cell_link(self, cell: Cell) -> str:
        """Where a cell of a table leads."""
        return self.link(cell.measure)

    def radius_anchor(self, radius: float) -> str:
        """Of a radius on a run's page."""
        return f"at-{radius:g}".replace(".", "-")

    def sample_anchor(self, sample_id: str) -> str:
        """Of a sample on a run's page."""
        return f"sample-{safe_name(sample_id)}"

    def sample_link(self, directory: Path, sample_id: str) -> str:
        """Where a sample is shown, once its run's pages are written."""
        page = self.page(directory, self._later.get((directory, sample_id), 1))
        return f"runs/{page}.html#{quote(self.sample_anchor(sample_id))}"

    def average_anchor(self, measure: Measure) -> str:
        """Of an average in the list of averages."""
        return f"average-{_short_digest('|'.join(map(str, (*measure.directories, measure.radius))), 8)}"

    def marker(self, encoder: str) -> str:
        """The style class of an encoder's colour."""
        return f"series-{self.places[encoder]}"

    def glyph(self, encoder: str) -> str:
        """The shape that stands for an encoder beside its colour."""
        return GLYPHS[self.places[encoder] % len(GLYPHS)]


def _short_digest(text: str, length: int) -> str:
    return sha256(text.encode(errors="surrogatepass")).hexdigest()[:length]


def distance_label(record: Record, norm: str) -> str:
    """A record's distance to the clean image in the unit of its norm: "3.999/255", or "0.4998 (l2)"."""
    short = f"{record.distance:.4g}"
    return f"{short}/255" if norm == "linf" else f"{short} ({norm})"


def environment(*more: Path) -> jinja2.Environment:
    """Jinja2 with the report's templates, style sheet and script, and further templates; all texts are escaped."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*more, TEMPLATES]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    for name in ("style.css", "script.js", "search.js"):
        made.globals[name.split(".")[0]] = Markup((TEMPLATES / name).read_text(encoding="utf-8"))
    made.filters["radius"] = eps_label
    made.filters["distance"] = distance_label
    return made


def make_room(directory: Path, what: str, marker: str, parts: Sequence[str]) -> None:
    """Make a folder for pages, or clear one of the same kind; what is none is not touched.

    Args:
        directory: made if absent.
        what: the kind, for messages, such as "a report".
        marker: name of an empty file that says that a folder is of this kind.
        parts: names of the folders in it.

    Raises:
        UsageError: it holds something else.
        RecordsError: there is a link in it, or the system refuses.
    """
    with explained("write", directory):
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            if not (directory / marker).exists():
                raise UsageError(f"{directory} holds something other than {what}; choose an empty or a new folder")
            for name in (marker, FIRST, *parts):
                unlinked(directory / name, directory)
            for part in parts:
                shutil.rmtree(directory / part, ignore_errors=True)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / marker).touch()


def write_page(path: Path, page: str) -> None:
    """Write a page; what cannot be written, such as the bytes of a file's name that are no UTF-8, is shown escaped."""
    with explained("write", path):
        path.parent.mkdir(exist_ok=True)
        with os.fdopen(open_inside(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w", encoding="utf-8") as file:
            file.write(for_terminal(page))
