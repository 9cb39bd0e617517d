"""Committed results: whole runs as archives with their scores as text, and the document made from them."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import cast

from bench import registry
from bench.analysis.audits import audits
from bench.config.facts import SUITE_FACTS
from bench.records import RecordsError, Run, archive_run, load_runs, write_atomically
from bench.records.files import read_inside, unlinked
from bench.records.worst import eps_label, groups_at, scores_at
from bench.regression.compare import RunKey, by_place
from bench.tables import audits as audit_table
from bench.tables import layouts, render
from bench.tables.blocks import stale, write_block, write_document
from bench.trust.places import inside
from bench.trust.text import for_csv

BASELINE = Path("results/mini")
DOCUMENT = Path("BENCHMARKS.md")
SCORES = "scores.tsv"


def scores_text(run: Run) -> str:
    """What each sample is left with at each radius, as tab-separated lines sorted by id.

    It lies next to the archive, which no reviewer can read: a change of the baseline shows as the samples that
    changed. It is checked against the records, never read for a number.
    """
    header, groups = run.header, groups_at(run)
    radii = [0.0, *sorted(eps for eps in set(header.radii) if eps)]
    columns = [scores_at(run, eps) for eps in radii]
    lines = [["sample", "group", *(eps_label(eps, header.norm) for eps in radii)]]
    for sample in sorted(groups):
        scores = [f"{column[sample]:.6g}" if sample in column else "unscored" for column in columns]
        lines.append([_cell(sample), _cell(groups[sample]), *scores])
    return "".join("\t".join(line) + "\n" for line in lines)


@lru_cache(maxsize=1 << 16)  # the runs of a suite share their samples
def _cell(text: str) -> str:
    return for_csv(text.encode("unicode_escape").decode("ascii"))


def update(baseline: Path, roots: Sequence[Path]) -> list[Path]:
    """Copy runs into the baseline, in place of those they are paired with, new ones beside others of their task.

    Returns where they went.

    Nothing is written unless all runs are whole.

    Raises:
        RecordsError: a run is partial or damaged, or the baseline cannot be written.
        UsageError: two runs have the same place, or a run names one outside the baseline.
    """
    runs = load_runs(roots)
    places = {
        place: run.directory for place, run in by_place(load_runs([baseline]) if baseline.exists() else ()).items()
    }
    for run in runs:
        if run.header.partial:
            raise RecordsError(f"{run.directory} is partial ({run.header.partial}); a baseline takes whole runs only")
    shelves = {_shelf(place): directory.parent for place, directory in places.items()}
    targets = []
    for place, run in by_place(runs).items():
        suite, group = _shelf(place)
        where = f"{run.directory / 'run.json'}: suite and task,"
        shelf = shelves.get((suite, group)) or inside(baseline, f"{suite}/{group}", where)
        target = unlinked(places.get(place, shelf / run.directory.name), baseline)
        if target.resolve() != run.directory.resolve():
            archive_run(run.directory, target)
        write_atomically(unlinked(target / SCORES, baseline), scores_text(run))
        targets.append(target)
    return targets


def _shelf(place: RunKey) -> tuple[str, str]:
    """What runs of a baseline lie beside: those of their suite and task, or its other defended ones."""
    suite, _, task, _, _, defence, _ = place
    return suite, "defences" if defence else task


def stale_scores(runs: Sequence[Run]) -> list[Path]:
    """The score files of archived runs that are absent or do not say what the records say."""
    stale = []
    for run in runs:
        path = run.directory / SCORES
        if not path.exists() or read_inside(path) != scores_text(run).encode("ascii"):
            stale.append(path)
    return stale


def blocks(runs: Sequence[Run]) -> dict[str, str]:
    """The generated parts of BENCHMARKS.md: a table per task, transfers, defences, audits, and a suite's claims."""
    heads = [(run, run.header) for run in runs]
    direct = [run for run, h in heads if not (h.surrogate or h.is_floor or h.images or h.defence)]
    made = {}
    for task in dict.fromkeys(run.header.task for run in direct):
        chosen = [run for run in direct if run.header.task == task]
        by_layout = (layouts.tables(chosen, SUITE_FACTS, (name,)) for name in reversed(registry.LAYOUTS))
        if table := next(chain.from_iterable(by_layout), None):  # the last layout is the most specific
            made[task] = render.markdown(table)
    for table in layouts.tables(runs, SUITE_FACTS, ("transfer", "models", "brought", "defences")):
        made[table.name] = render.markdown(table)
    if audited := audits(runs):
        made["audit"] = audit_table.table(audited)
    suites = {run.header.suite.partition("-")[0] for run in runs}  # "mini-full" has the claims of "mini"
    for name in (name for name in registry.names("bench.claims") if name in suites):
        made["claims"] = cast(str, registry.made("bench.claims", name, str, runs))
    return made


def write(document: Path, runs: Sequence[Run]) -> None:
    """Bring every block of the document up to date; a document that is not there is made."""
    contents = blocks(runs)
    if not document.exists():
        write_document(document, contents)
        return
    for name, content in contents.items():
        write_block(document, name, content)


def stale_blocks(document: Path, runs: Sequence[Run]) -> list[str]:
    """Names of the blocks that do not say what the records say."""
    return [name for name, content in blocks(runs).items() if stale(document, name, content)]
