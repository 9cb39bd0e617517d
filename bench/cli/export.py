"""``bench export``: numbers for other programs."""

from pathlib import Path

import click

from bench.cli.choosing import choosing, chosen
from bench.cli.say import say
from bench.config import DEFAULT_OUTPUT

STYLES = ("csv", "parquet", "lm-eval")


@click.command()
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="A file; a folder for lm-eval.")
@click.option("--format", "style", type=click.Choice(STYLES), help="Default: as the file's name ends.")
@choosing
def export(
    runs: tuple[Path, ...],
    output: Path,
    style: str | None,
    encoder: str | None,
    task: str | None,
    dataset: str | None,
    where: tuple[str, ...],
) -> None:
    """Write every number of finished runs for other programs; tables for reading come from `bench table`.

    CSV and Parquet have the columns of result.table() to the last digit, and what tells runs apart. lm-eval is a folder
    with the results_*.json of lm-evaluation-harness and lmms-eval, a file per model. RUNS are those under results/runs
    if none are given.

    \b
    Examples:
      bench export results/mini -o mini.csv
      bench export results/mini -o mini.parquet --task vqa
      bench export results/mini -o lm-eval --format lm-eval --where suite=mini-full
    """  # noqa: D301
    from bench.config.facts import SUITE_FACTS
    from bench.records import load_runs
    from bench.tables.export import export as write

    found = chosen(load_runs(runs or [DEFAULT_OUTPUT]), encoder, task, dataset, where)
    for path in write(found, SUITE_FACTS, output, style):
        say(path)
