"""``bench report``: results as a web page."""

from pathlib import Path

import click


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder for the report.")
@click.option("--title", default="Robustness report", show_default=True)
@click.option("--gallery", "most", type=click.IntRange(0), default=12, show_default=True, help="Samples shown per run.")
@click.option("--quiet", is_flag=True, help="No progress bars.")
def report(runs: tuple[Path, ...], output: Path, title: str, most: int, quiet: bool) -> None:
    """Write a static HTML report of runs: open OUTPUT/index.html; it needs no network.

    Tables to sort, scores against radius, robust against clean, a gallery of clean and adversarial images with what
    the model said of each (of runs made with `bench run --save-adversarial`), and a page of records per run, to which
    every number leads. It is made of the run folders alone: no dataset, model or checkpoint is loaded.

    \b
    Examples:
      bench report results/mini -o report
      bench run --encoder clip,fare --task vqa --save-adversarial && bench report results/runs -o report
    """  # noqa: D301
    from bench.config.facts import SUITE_FACTS
    from bench.records import load_runs
    from bench.report.pages import write_report

    first = write_report(load_runs(runs), output, facts=SUITE_FACTS, title=title, most=most, progress=not quiet)
    click.echo(first)
