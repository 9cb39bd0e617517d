"""``bench table``: tables of finished runs."""

from pathlib import Path

import click

from bench.config import DEFAULT_OUTPUT
from bench.errors import UsageError


@click.command()
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path))
@click.option("--format", "style", type=click.Choice(["text", "markdown", "csv", "json"]), default="text")
@click.option("--write", "document", type=click.Path(path_type=Path), help="Regenerate the blocks of this document.")
def table(runs: tuple[Path, ...], style: str, document: Path | None) -> None:
    """Tables of finished runs (default: those under results/runs).

    \b
    Examples:
      bench table
      bench table results/mini --format markdown
      bench table results/mini --write BENCHMARKS.md
    """  # noqa: D301
    from bench import committed, tables

    found = committed.load_runs(runs or [DEFAULT_OUTPUT])
    if document is not None:
        committed.write(document, found)
        return
    try:
        frame = tables.table([*tables.summary(found), *tables.averages(found)], committed.ENCODERS)
    except ValueError as error:
        raise UsageError(str(error)) from error
    render = {"text": tables.to_text, "markdown": tables.to_markdown, "csv": tables.to_csv, "json": tables.to_json}
    click.echo(render[style](frame), nl=False)
