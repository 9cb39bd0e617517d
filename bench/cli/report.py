"""``bench report``: results as a web page."""

from pathlib import Path

import click

from bench.cli.choosing import choosing, chosen
from bench.cli.say import say


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder for the report.")
@click.option("--title", default="Robustness report", show_default=True)
@click.option("--gallery", "most", type=click.IntRange(0), default=12, show_default=True, help="Samples shown per run.")
@click.option("--quiet", is_flag=True, help="No progress bars.")
@choosing
def report(
    runs: tuple[Path, ...],
    output: Path,
    title: str,
    most: int,
    quiet: bool,
    encoder: str | None,
    task: str | None,
    dataset: str | None,
    where: tuple[str, ...],
) -> None:
    """Write a static HTML report of runs: open OUTPUT/index.html; it needs no network.

    Tables to sort, scores against radius, robust against clean, a gallery of clean and adversarial images with what
    the model said of each (of runs made with `bench run --save-adversarial`), and a page of records per run, to which
    every number leads. It is made of the run folders alone: no dataset, model or checkpoint is loaded.

    \b
    Examples:
      bench report results/mini -o report
      bench report results/runs -o report --task vqa --where protocol=strict
      bench run --encoder clip,fare --task vqa --save-adversarial && bench report results/runs -o report
    """  # noqa: D301
    from bench.config.facts import SUITE_FACTS
    from bench.records import load_runs
    from bench.report.pages import write_report

    found = chosen(load_runs(runs), encoder, task, dataset, where)
    say(write_report(found, output, facts=SUITE_FACTS, title=title, most=most, progress=not quiet))
