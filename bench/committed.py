"""The committed mini results: records under results/mini, and the blocks of BENCHMARKS.md made from them."""

from collections.abc import Sequence
from pathlib import Path

from bench import claims, layouts, render, tables
from bench.records import RecordsError, Run, archive_run, find_runs, load_run, read_header

BASELINE = Path("results/mini")
DOCUMENT = Path("BENCHMARKS.md")


def load_runs(roots: Sequence[Path]) -> list[Run]:
    """Every run under the given directories.

    Raises:
        RecordsError: there is none.
    """
    runs = [load_run(directory) for root in roots for directory in find_runs(root)]
    if not runs:
        raise RecordsError(f"no runs under {', '.join(map(str, roots))}; make some with `bench run`")
    return runs


def blocks(runs: Sequence[Run]) -> dict[str, str]:
    """The generated parts of BENCHMARKS.md by name: a table a task, transfers, and the claims."""
    direct = [run for run in runs if "surrogate" not in run.header.protocol]
    made = {}
    for task in dict.fromkeys(run.header.task for run in direct):
        chosen = [run for run in direct if run.header.task == task]
        name = next(layout for layout in reversed(layouts.available(chosen)))
        made[task] = render.markdown(layouts.build(name, chosen))
    if len(direct) < len(runs):
        made["transfer"] = render.markdown(layouts.build("transfer", runs))
    made["claims"] = claims.claims_markdown(claims.evaluate_claims(runs))
    return made


def update(baseline: Path, roots: Sequence[Path]) -> list[Path]:
    """Copy runs into the baseline, in place of those of the same name; returns where they went."""
    targets = []
    for root in roots:
        for directory in find_runs(root):
            targets.append(baseline / read_header(directory).task / directory.name)
            archive_run(directory, targets[-1])
    return targets


def write(document: Path, runs: Sequence[Run]) -> None:
    """Bring every block of the document up to date."""
    for name, content in blocks(runs).items():
        tables.write_block(document, name, content)


def stale_blocks(document: Path, runs: Sequence[Run]) -> list[str]:
    """Names of the blocks that do not say what the records say."""
    return [name for name, content in blocks(runs).items() if tables.stale(document, name, content)]
