"""``bench table``: tables of finished runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.config import DEFAULT_OUTPUT
from bench.registry import unknown

if TYPE_CHECKING:
    from bench.tables.table import Table

STYLES = ("text", "markdown", "latex", "csv", "json", "html")


@click.command()
@click.argument("words", nargs=-1, metavar="[LAYOUT] [RUNS]...")
@click.option("--list", "listing", is_flag=True, help="List the layouts; so does the bare command.")
@click.option("--format", "style", type=click.Choice(STYLES), default="text", show_default=True)
@click.option("--all", "everything", is_flag=True, help="Every layout that the runs have numbers for.")
@click.option("--write", "document", type=click.Path(path_type=Path), help="Regenerate the blocks of this document.")
def table(words: tuple[str, ...], listing: bool, style: str, everything: bool, document: Path | None) -> None:
    """Tables of finished runs; by itself, the layouts that there are.

    LAYOUT is "flat" and RUNS are those under results/runs where only the other is given.

    Each number has its 95 % interval; the best are bold; "-" was not measured; "*" is of a partial run. With the suite
    "paper", the published number and the difference stand in braces. Text, Markdown, LaTeX (booktabs) and HTML are for
    reading, CSV and JSON hold a line or object per number.

    \b
    Examples:
      bench table
      bench table robustness results/mini
      bench table zeroshot results/mini --format latex
      bench table --all results/mini --write BENCHMARKS.md
    """  # noqa: D301
    from bench.config.facts import SUITE_FACTS
    from bench.regression import baseline as committed
    from bench.tables import layouts

    known = layouts.names()
    if listing or not (words or everything or document):
        width = max(map(len, known))
        for one in known:
            click.echo(f"{one.ljust(width)}  {layouts.find(one).about}")
        return
    name, roots = _split(words, known)
    if document is not None and not roots and everything:
        roots = (committed.BASELINE,)
    found = committed.load_runs(roots or [DEFAULT_OUTPUT])
    if document is not None:
        committed.write(document, found)
        return
    shown = layouts.tables(found, SUITE_FACTS) if everything else [layouts.build(name or "flat", found, SUITE_FACTS)]
    click.echo("\n".join(_headed(one, style, len(shown)) for one in shown), nl=False)


def _headed(table: "Table", style: str, count: int) -> str:
    from bench.tables.render import render

    heads = {"text": f"{table.title}\n\n", "markdown": f"## {table.title}\n\n"}
    return (heads.get(style, "") if count > 1 else "") + render(table, style)


def _split(words: tuple[str, ...], known: Sequence[str]) -> tuple[str | None, tuple[Path, ...]]:
    """The layout, if the first word names one, and the folders."""
    if words and words[0] in known:
        return words[0], tuple(map(Path, words[1:]))
    if words and "/" not in words[0] and not Path(words[0]).exists():
        raise unknown("layout", words[0], known)
    return None, tuple(map(Path, words))
