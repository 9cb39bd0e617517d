"""Writing a report: its first page, a page per run, and the gallery's pictures."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from tqdm import tqdm

from bench.analysis.cells import Measure, averaged
from bench.analysis.facts import Facts
from bench.errors import UsageError
from bench.records import RecordsError, Run
from bench.records.samples import Asked, read_samples
from bench.report import gallery
from bench.report.chapters import chapter, columns, parts
from bench.report.run_page import run_context
from bench.report.site import FIRST, Site, environment, make_room, write_page

MARKER = ".bench-report"  # in a folder that a report may be written over


def write_report(
    runs: Sequence[Run],
    directory: Path,
    *,
    facts: Facts,
    title: str = "Robustness report",
    most: int = 12,
    progress: bool = True,
) -> Path:
    """Write a report; returns its first page.

    Args:
        runs: finished or partial runs; partial numbers are marked.
        directory: made if absent; an earlier report there is replaced.
        facts: what the runs' suites say of their data.
        title: of the first page.
        most: samples shown in the gallery, per run.
        progress: show a progress bar on stderr.

    Raises:
        UsageError: there are no runs, or the folder holds something else.
        RecordsError: the folder cannot be written.
    """
    if not runs:
        raise UsageError("no runs to report")
    make_room(directory, "a report", MARKER, ("images", "runs"))
    site = Site(runs)
    problems: list[str] = []
    asked = {run.directory: _asked(run, problems) for run in runs}
    cards = _gallery(site, directory / "images", most, asked, problems, progress)
    templates = environment()
    context = {"title": title, "version": version("robust-vlm-bench"), "site": site}
    index = templates.get_template("index.html").render(
        **context,
        chapters=[chapter(name, part, site, facts, problems) for name, part in parts(runs)],
        columns=columns,
        cards=cards,
        outcomes=gallery.outcomes(cards),
        problems=problems,
        averages=[(site.average_anchor(m), m) for m in _averages(runs, facts)],
    )
    first = directory / FIRST
    write_page(first, index)
    pictures = {(card.shown.run.directory, card.shown.sample_id): card for card in cards}
    for run in tqdm(runs, desc="pages", disable=None if progress else True, leave=False):
        page = templates.get_template("run.html").render(**context, **run_context(run, asked[run.directory], pictures))
        write_page(directory / "runs" / f"{site.page(run.directory)}.html", page)
    return first


def _averages(runs: Sequence[Run], facts: Facts) -> list[Measure]:
    return [m for _, part in parts(runs) for m in averaged((r for r in part if r.header.surrogate is None), facts)]


def _asked(run: Run, problems: list[str]) -> Mapping[str, Asked]:
    """What the run asked; why it cannot be read is added to the problems."""
    try:
        return read_samples(run.directory)
    except RecordsError as error:
        problems.append(str(error))
        return {}


def _gallery(
    site: Site,
    images: Path,
    most: int,
    asked: Mapping[Path, Mapping[str, Asked]],
    problems: list[str],
    progress: bool,
) -> list[gallery.Card]:
    """The cards of all runs that kept images; why others of them have none is added to the problems."""
    cards: list[gallery.Card] = []
    keeping = [run for run in site.runs if gallery.has_images(run)] if most else []
    for number, run in enumerate(tqdm(keeping, desc="gallery", disable=None if progress else True, leave=False)):
        try:
            made = gallery.cards(run, most, images, f"r{number}", asked[run.directory])
        except RecordsError as error:
            problems.append(f"{run.directory}: {error}")
            continue
        if any(card.clean_image is None for card in made):
            problems.append(
                f"{run.directory} kept no clean images beside the adversarial ones, for it is from before they were "
                "saved. Make it again with --save-adversarial to see them."
            )
        cards += made
    return cards
