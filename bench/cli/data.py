"""``bench data``: data set files."""

from pathlib import Path

import click


@click.group()
def data() -> None:
    """Data set files."""


@data.command()
@click.argument("world", type=click.Choice(["mini"]))
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--size", type=int, default=None, help="Samples a data set. Default: all 1000.")
def export(world: str, directory: Path, size: int | None) -> None:
    """Write the embedded data sets as files in the official formats.

    \b
    Example:
      bench data export mini /tmp/mini && bench run --encoder fare --task vqa --data-root /tmp/mini
    """  # noqa: D301
    from bench.data.export import export_mini

    for path in export_mini(directory, size):
        click.echo(path)
