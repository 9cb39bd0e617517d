"""The pages of a report: what goes into the templates, and what links where."""

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import jinja2
from markupsafe import Markup
from tqdm import tqdm

from bench.analysis.cells import AVERAGE, Measure, averaged, measured, radii
from bench.errors import UsageError
from bench.records import CLEAN, Record, Run
from bench.records.files import explained
from bench.records.worst import eps_label, is_worse, worst_attacks
from bench.report import attacks, charts, gallery
from bench.tables import layouts, render
from bench.tables.layouts import ENCODERS, Cell

TEMPLATES = Path(__file__).parent / "templates"
MARKER = ".bench-report"  # in a folder that a report may be written over
PALETTE = 8


@dataclass(frozen=True)
class Chart:
    """A chart with its heading."""

    title: str
    subtitle: str
    svg: Markup


@dataclass(frozen=True)
class Chapter:
    """Runs that may stand in one table: those of one protocol and norm."""

    title: str
    runs: list[Run]
    tables: list[Markup] = field(default_factory=list)
    curves: list[Chart] = field(default_factory=list)
    scatters: list[Chart] = field(default_factory=list)
    climbs: list[Chart] = field(default_factory=list)
    standing: list[Chart] = field(default_factory=list)
    losses: list[Chart] = field(default_factory=list)


def write_report(
    runs: Sequence[Run],
    directory: Path,
    *,
    title: str = "Robustness report",
    most: int = 12,
    data_root: Path | None = None,
    progress: bool = True,
) -> Path:
    """Write a report; returns its first page.

    Args:
        runs: finished or partial runs; partial numbers are marked.
        directory: made if absent; an earlier report there is replaced.
        title: of the first page.
        most: samples shown in the gallery, a run.
        data_root: where the datasets' files lie, for the gallery's clean images.
        progress: show a progress bar on stderr.

    Raises:
        UsageError: there are no runs, or the folder holds something else.
        RecordsError: the folder cannot be written.
    """
    if not runs:
        raise UsageError("no runs to report")
    _clear(directory)
    site = _Site(list(runs))
    shown, problems = _gallery(site, directory / "images", most, data_root, progress)
    environment = _environment()
    context = {"title": title, "version": version("robust-vlm-bench"), "site": site}
    index = environment.get_template("index.html").render(
        **context,
        chapters=[_chapter(name, part, site) for name, part in _parts(runs)],
        cards=shown,
        outcomes=gallery.outcomes(shown),
        problems=problems,
        with_images=any(map(gallery.has_images, runs)),
        averages=[(site.average_anchor(m), m) for m in _averages(runs)],
    )
    first = directory / "index.html"
    _write(first, index)
    pictures = {(card.shown.run.directory, card.shown.sample_id): card for card in shown}
    for run in tqdm(runs, desc="pages", disable=None if progress else True, leave=False):
        page = environment.get_template("run.html").render(**context, **_run_context(run, site, pictures))
        _write(directory / "runs" / f"{site.page(run.directory)}.html", page)
    return first


def _write(path: Path, page: str) -> None:
    with explained("write", path):
        path.parent.mkdir(exist_ok=True)
        path.write_text(page, encoding="utf-8")


class _Site:
    """Names and links of a report's pages."""

    def __init__(self, runs: list[Run]) -> None:
        self.runs = runs
        encoders = dict.fromkeys(run.header.encoder for run in runs)
        self.encoders = [e for e in ENCODERS if e in encoders] + [e for e in encoders if e not in ENCODERS]
        fixed = {encoder: place for place, encoder in enumerate(ENCODERS)}
        others = [e for e in self.encoders if e not in fixed]
        self.places = fixed | {e: (len(fixed) + i) % PALETTE for i, e in enumerate(others)}
        self.protocols = {run.header.protocol_name for run in runs}

    def page(self, directory: Path) -> str:
        """The file name of a run's page, without its ending: legible, and unique by a digest of the whole path."""
        plain = "".join(c if c.isalnum() or c in "-_.+" else "-" for c in directory.name)
        return f"{plain[:80]}-{sha256(str(directory).encode()).hexdigest()[:6]}"

    def link(self, measure: Measure) -> str:
        """Where a number leads: to its run's page, or to the list of runs that an average is of."""
        if measure.dataset == AVERAGE:
            return f"#{self.average_anchor(measure)}"
        return f"runs/{self.page(measure.directories[0])}.html#{self.radius_anchor(measure.radius)}"

    def cell_link(self, cell: Cell) -> str:
        """Where a cell of a table leads."""
        return self.link(cell.measure)

    def radius_anchor(self, eps: float) -> str:
        """Of a radius on a run's page."""
        return f"at-{eps:g}".replace(".", "-")

    def average_anchor(self, measure: Measure) -> str:
        """Of an average in the list of averages."""
        text = "|".join(map(str, (*measure.directories, measure.radius)))
        return f"average-{sha256(text.encode()).hexdigest()[:8]}"

    def marker(self, encoder: str) -> str:
        """The style class of an encoder's colour."""
        return f"series-{self.places[encoder]}"


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    for name in ("style.css", "script.js"):
        environment.globals[name.split(".")[0]] = Markup((TEMPLATES / name).read_text(encoding="utf-8"))
    environment.filters["radius"] = eps_label
    return environment


def _clear(directory: Path) -> None:
    """Make room for a report without touching anything that is none."""
    if directory.exists() and any(directory.iterdir()):
        if not (directory / MARKER).exists():
            raise UsageError(f"{directory} holds something other than a report; choose an empty or a new folder")
        for part in ("images", "runs"):
            shutil.rmtree(directory / part, ignore_errors=True)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / MARKER).touch()
    except OSError as error:
        raise UsageError(f"cannot write {directory}: {error.strerror}; choose another folder") from error


def _parts(runs: Sequence[Run]) -> list[tuple[str, list[Run]]]:
    """Runs by suite, protocol and norm, with a title where there are several: their numbers are never mixed."""
    parts: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        parts.setdefault((run.header.suite, run.header.protocol_name, run.header.norm), []).append(run)
    if len(parts) == 1:
        return [("", list(runs))]
    return [(f"Suite {suite}, protocol {name}, {norm}", part) for (suite, name, norm), part in parts.items()]


def _chapter(title: str, runs: list[Run], site: _Site) -> Chapter:
    chapter = Chapter(title, runs)
    for name in sorted(layouts.available(runs), key=lambda name: name == "flat"):
        chapter.tables.append(Markup(render.html(layouts.build(name, runs), site.cell_link)))
    direct = [run for run in runs if not run.header.surrogate]
    panels: dict[tuple[str, str, str], list[Measure]] = {}
    for measure in [*averaged(direct), *measured(direct)]:
        h = measure.header
        panels.setdefault((h.task, measure.dataset, h.model or ""), []).append(measure)
    order = {encoder: place for place, encoder in enumerate(site.encoders)}
    for (task, dataset, _), found in sorted(panels.items(), key=lambda item: (item[0][0], item[0][1] != AVERAGE)):
        found.sort(key=lambda m: order[m.header.encoder])
        _draw(chapter, f"{task}, {dataset}", found, site)
    return chapter


def _draw(chapter: Chapter, title: str, found: list[Measure], site: _Site) -> None:
    """The charts of one task on one dataset."""
    header, stem = found[0].header, f"c{sha256((chapter.title + title).encode()).hexdigest()[:6]}"
    better = "lower is better" if header.worst == "max" else "higher is better"
    largest = eps_label(max(m.radius for m in found), header.norm)
    if header.radii:
        svg = charts.curves(found, site.places, site.link, f"{stem}-curve")
        chapter.curves.append(Chart(title, better, Markup(svg)))
    pairs = _pairs(found) if header.worst == "min" else []
    if pairs:
        svg = charts.scatter(pairs, site.places, site.link, f"{stem}-scatter")
        chapter.scatters.append(Chart(title, "higher is better, both ways", Markup(svg)))
    if climbs := attacks.climbs(chapter.runs, found, site.places):
        svg = charts.climbs(climbs, site.places, f"{stem}-climb")
        chapter.climbs.append(Chart(title, f"first step at {largest}", Markup(svg)))
    spent, counts = attacks.spent_gradients(chapter.runs, found, site.places)
    if len({value for values in spent.values() for value in values} - {math.inf}) > 1:
        svg = charts.standing(spent, counts, site.places, f"{stem}-standing")
        chapter.standing.append(Chart(title, f"attacked at {largest}", Markup(svg)))
    if found[0].dataset != AVERAGE and (losses := attacks.final_losses(chapter.runs, found, site.places)):
        svg = charts.boxes(losses, site.places, header.norm, f"{stem}-loss")
        chapter.losses.append(Chart(title, "the attacker climbs", Markup(svg)))


def _pairs(found: Sequence[Measure]) -> list[tuple[Measure, Measure]]:
    """(clean, at the largest radius) of every encoder that has both."""
    largest = max(m.radius for m in found)
    at = {(m.header.encoder, m.radius): m for m in found}
    encoders = dict.fromkeys(m.header.encoder for m in found)
    return [(at[e, 0.0], at[e, largest]) for e in encoders if largest and (e, 0.0) in at and (e, largest) in at]


def _averages(runs: Sequence[Run]) -> list[Measure]:
    return [m for _, part in _parts(runs) for m in averaged(r for r in part if not r.header.surrogate)]


def _gallery(
    site: _Site, images: Path, most: int, data_root: Path | None, progress: bool
) -> tuple[list[gallery.Card], list[str]]:
    """The cards of all runs that kept images, and why others of them have none."""
    cards, problems = [], []
    keeping = [run for run in site.runs if gallery.has_images(run)] if most else []
    for number, run in enumerate(tqdm(keeping, desc="gallery", disable=None if progress else True, leave=False)):
        try:
            cards += gallery.cards(run, most, images, f"r{number}", data_root)
        except UsageError as error:
            problems.append(f"{run.directory}: {error}")
    return cards, problems


# ---- The page of one run ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """One sample on a run's page: its clean record, and the worst so far at each radius (None: nothing was needed)."""

    sample_id: str
    clean: Record | None
    attacked: tuple[Record | None, ...]
    outcome: str
    card: gallery.Card | None


def _run_context(run: Run, site: _Site, pictures: Mapping[tuple[Path, str], gallery.Card]) -> dict[str, object]:
    found = {m.radius: m for m in measured([run])}
    lines = _lines(run, pictures)
    return {
        "run": run,
        "radii": radii(run.header),
        "found": found,
        "lines": lines,
        "outcomes": list(dict.fromkeys(line.outcome for line in lines)),
        "facts": _facts(run),
    }


def _lines(run: Run, pictures: Mapping[tuple[Path, str], gallery.Card]) -> list[Line]:
    by_sample: dict[str, list[Record]] = {}
    for record in run.records:
        by_sample.setdefault(record.sample_id, []).append(record)
    attacks, lines = worst_attacks(run.header, run.records), []
    for sample, records in by_sample.items():
        clean = next((r for r in records if r.step == CLEAN), None)
        worst = [attacks.get((sample, radius)) for radius in radii(run.header)[1:]]
        lines.append(
            Line(sample, clean, tuple(worst), _outcome(run, clean, worst), pictures.get((run.directory, sample)))
        )
    return lines


def _outcome(run: Run, clean: Record | None, worst: Sequence[Record | None]) -> str:
    tried = [record for record in worst if record is not None]
    if clean is None or clean.score is None or any(record.error for record in tried):
        return "error"
    if any(r.score is not None and is_worse(run.header.worst, r.score, clean.score) for r in tried):
        return "fell"
    return "stood" if tried else "not attacked"


def _facts(run: Run) -> list[tuple[str, str]]:
    """Provenance in words."""
    h = run.header
    steps = "; ".join(", ".join(f"{key} {value}" for key, value in step.items()) for step in h.attack_steps)
    commit = h.commit or "unknown"
    return [
        ("directory", str(run.directory)), ("suite", h.suite), ("encoder", h.encoder), ("model", h.model or "none"),
        ("task", f"{h.task}, version {h.task_version}"), ("dataset", h.dataset), ("metric", h.metric),
        ("threat model", f"{h.norm}, " + (", ".join(eps_label(e, h.norm) for e in h.radii) or "no attack")),
        ("attack", h.attack), ("steps", steps), ("samples", str(h.n_samples)), ("seed", str(h.seed)),
        ("protocol", ", ".join(f"{key} {value}" for key, value in h.protocol.items())),
        ("status", h.partial or h.status), ("began", h.started), ("ended", h.ended or "not yet"),
        ("code", commit + (" with uncommitted changes" if h.dirty else "")), ("device", h.device),
        ("packages", ", ".join(f"{name} {number}" for name, number in h.packages.items())),
        ("data fingerprint", h.dataset_fingerprint),
        *((f"weights, {name}", digest) for name, digest in h.weights.items()),
    ]  # fmt: skip
