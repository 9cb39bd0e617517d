"""The rows of BENCHMARKS.md on transfer from surrogates: the suite mini-transfer, archived and in a table.

    python benchmarks/transfer.py results/runs --archive results/transfer --write BENCHMARKS.md    # half an hour

Below the table stand paired tests: each ensemble against the best of its members alone, on the same samples.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder would hide the package "attacks"

import bench
from bench.analysis.stats import paired
from bench.config.facts import SUITE_FACTS
from bench.records import Run, load_runs
from bench.records.worst import eps_label, groups_at, scores_at
from bench.regression import baseline
from bench.tables import layouts, render
from bench.tables.blocks import write_block

SUITE, BLOCK = "mini-transfer", "surrogates"


def block(archive: Path) -> str:
    """The block of BENCHMARKS.md."""
    runs = load_runs([archive])
    table = render.markdown(layouts.build(BLOCK, runs, SUITE_FACTS))
    return "\n".join([table, *(f"- {line}" for line in tests(runs))])


def tests(runs: list[Run]) -> list[str]:
    """Each ensemble beside the surrogate of its members that harms the victim most: a paired test in words."""
    found = []
    for whole in (run for run in runs if len(run.header.surrogates) > 1):
        victim, members = whole.header.encoder, whole.header.surrogates
        for radius in whole.header.radii:
            singles = [r for r in runs if r.header.encoder == victim and r.header.surrogates in [(m,) for m in members]]
            best = min(singles, key=lambda run: _mean(run, radius))
            change = paired(scores_at(whole, radius), scores_at(best, radius), groups_at(whole), ceiling=100.0)
            found.append(
                f"{victim} at {eps_label(radius, whole.header.norm)}: {_mean(whole, radius):.1f} on images of "
                f"{whole.header.surrogate}, {_mean(best, radius):.1f} on those of {best.header.surrogate}, the best of "
                f"its members: {change.in_words()} ({change.test})"
            )
    return found


def _mean(run: Run, radius: float) -> float:
    scores = scores_at(run, radius)
    return sum(scores.values()) / len(scores)


def main() -> None:
    """Carry the suite out, and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--archive", type=Path, help="where whole runs go: a baseline of `bench check`")
    parser.add_argument("--write", type=Path, help="the document with the block")
    parser.add_argument("--jobs", type=int, default=None, help="runs at once")
    given = parser.parse_args()
    made = bench.run_all(suite=SUITE, output=given.output, device="cpu", jobs=given.jobs).runs
    if given.archive is not None:
        baseline.update(given.archive, [run.directory for run in made])
    if given.write is not None:
        write_block(given.write, BLOCK, block(given.archive or given.output))


if __name__ == "__main__":
    main()
