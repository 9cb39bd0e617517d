"""``bench report``: results as a web page."""

from pathlib import Path

import click


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder for the report.")
@click.option("--title", default="Robustness report", show_default=True)
@click.option("--gallery", "most", type=click.IntRange(0), default=12, show_default=True,
              help="Samples shown of each run that kept images. 0 spares loading data and models.")  # fmt: skip
@click.option("--data-root", type=click.Path(path_type=Path), default=None, help="Where the runs' data files lie.")
@click.option("--quiet", is_flag=True, help="No progress bars.")
def report(runs: tuple[Path, ...], output: Path, title: str, most: int, data_root: Path | None, quiet: bool) -> None:
    """Write a static HTML report of runs: open OUTPUT/index.html; it needs no network.

    Tables to sort, scores against radius, robust against clean, a gallery of clean and adversarial images with what
    the model said of each (of runs made with `bench run --save-adversarial`), and a page of records a run, to which
    every number leads.

    \b
    Examples:
      bench report results/mini -o report
      bench run --encoder clip,fare --task vqa --save-adversarial && bench report results/runs -o report
    """  # noqa: D301
    from bench.records import load_runs
    from bench.report.pages import write_report

    found = load_runs(runs)
    click.echo(write_report(found, output, title=title, most=most, data_root=data_root, progress=not quiet))
