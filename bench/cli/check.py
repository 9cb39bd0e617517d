"""``bench check``: the regression gate."""

import sys
from pathlib import Path

import click

from bench.cli.root import CHECK_FAILED, DONE


@click.command()
@click.option("--baseline", type=click.Path(path_type=Path), default=None, help="Default: results/mini.")
@click.option("--document", type=click.Path(path_type=Path), default=None, help="Default: BENCHMARKS.md.")
@click.option("--update", type=click.Path(path_type=Path), help="Take the runs under here as the new baseline.")
@click.option("--rerun", type=int, default=40, show_default=True, help="Samples to run again of each guarded run.")
@click.option("--jobs", type=int, default=None, help="Runs at once. Default: one a core on the CPU, else 1.")
def check(baseline: Path | None, document: Path | None, update: Path | None, rerun: int, jobs: int | None) -> None:
    """Does the code still give the committed numbers? Exits with 1 when it does not.

    Compares the document's tables with the committed records, then runs a part of the guarded runs again and compares
    them sample by sample: only a significant drop fails.

    \b
    Example:
      bench check --rerun 100
      bench check --update results/runs/mini-full --rerun 0
    """  # noqa: D301
    from bench import committed

    baseline, document = baseline or committed.BASELINE, document or committed.DOCUMENT
    if update is not None:
        committed.update(baseline, [update])
        committed.write(document, committed.load_runs([baseline]))
    found = committed.load_runs([baseline])
    failed = False
    for name in committed.stale_blocks(document, found):
        failed = True
        click.echo(
            f"stale: block {name!r}; run `bench table --all results/mini --write BENCHMARKS.md` and review the change"
        )
    if rerun:
        from bench.gate import rerun_guarded

        for finding in rerun_guarded(found, rerun, jobs):
            failed = failed or not finding.ok
            click.echo(f"{finding.verdict:>14}  {finding.words}")
    click.echo("check failed" if failed else "check passed")
    sys.exit(CHECK_FAILED if failed else DONE)
