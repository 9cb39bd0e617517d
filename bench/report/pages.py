"""Writing a report: its first page, the pages of each run, and the gallery's pictures.

The records of one run at a time are in memory.
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from tqdm import tqdm

from bench.analysis.cells import Measure, averaged
from bench.analysis.facts import Facts
from bench.errors import UsageError
from bench.records import RecordsError, Run
from bench.records.samples import Asked, read_samples
from bench.report import attacks, gallery
from bench.report.chapters import chapter, columns, parts
from bench.report.paging import write_run
from bench.report.run_page import lines_of
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
    site, templates = Site(runs), environment()
    report = {"title": title, "version": version("robust-vlm-bench"), "site": site}
    problems: list[str] = []
    cards: list[gallery.Card] = []
    summaries: dict[Path, attacks.Summary] = {}
    for number, run in enumerate(tqdm(runs, desc="runs", disable=None if progress else True, leave=False)):
        asked = _asked(run, problems)
        shown = _gallery(run, directory / "images", most, f"r{number}", asked, problems)
        lines = lines_of(run, asked, {card.shown.sample_id: card for card in shown})
        write_run(run, lines, directory / "runs", site, templates, report)
        summaries[run.directory] = attacks.summary(run)
        cards += shown
        run.let_go()
    made = [chapter(name, part, site, facts, summaries, problems) for name, part in parts(runs)]
    index = templates.get_template("index.html").render(
        report,
        chapters=made,
        columns=columns,
        cards=cards,
        outcomes=gallery.outcomes(cards),
        problems=problems,
        averages=[(site.average_anchor(m), m) for m in _averages(runs, facts)],
    )
    write_page(directory / FIRST, index)
    return directory / FIRST


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
    run: Run, images: Path, most: int, prefix: str, asked: Mapping[str, Asked], problems: list[str]
) -> list[gallery.Card]:
    """The cards of a run that kept images; why it has none, or no clean ones, is added to the problems."""
    if not most or not gallery.has_images(run):
        return []
    try:
        made = gallery.cards(run, most, images, prefix, asked)
    except RecordsError as error:
        problems.append(f"{run.directory}: {error}")
        return []
    if any(card.clean_image is None for card in made):
        problems.append(
            f"{run.directory} kept no clean images beside the adversarial ones, for it is from before they were "
            "saved. Make it again with --save-adversarial to see them."
        )
    return made
