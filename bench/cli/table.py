"""``bench table``: tables of finished runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli.choosing import choosing, chosen
from bench.cli.say import say, say_line
from bench.config import DEFAULT_OUTPUT
from bench.errors import UsageError
from bench.registry import unknown

if TYPE_CHECKING:
    from bench.records import Run
    from bench.tables.table import Table

STYLES = ("text", "markdown", "latex", "csv", "json", "html")


@click.command()
@click.argument("words", nargs=-1, metavar="[LAYOUT] [RUNS]...")
@click.option("--list", "listing", is_flag=True, help="List the layouts; so does the bare command.")
@click.option("--format", "style", type=click.Choice(STYLES), default="text", show_default=True)
@click.option("--all", "everything", is_flag=True, help="Every layout that the runs have numbers for.")
@click.option("--write", "document", type=click.Path(path_type=Path), help="Regenerate the blocks of this document.")
@choosing
def table(
    words: tuple[str, ...],
    listing: bool,
    style: str,
    everything: bool,
    document: Path | None,
    encoder: str | None,
    task: str | None,
    dataset: str | None,
    where: tuple[str, ...],
) -> None:
    """Tables of finished runs; by itself, the layouts that there are.

    LAYOUT is "flat" and RUNS are those under results/runs where only the other is given.

    Each number has its 95 % interval; the best are bold; "-" was not measured; "*" is of a partial run, "!" of one of
    which a sanity check failed, "^" on images of another model with the same encoder. With the suite "paper", the
    published number and the difference stand in braces, with "~" where it was measured otherwise. Of one number a whole
    run stands for partial ones; several whole ones are all shown. Runs of different protocols or norms are shown in
    tables of their own.

    Text, Markdown, LaTeX (booktabs) and HTML are for reading, CSV and JSON hold a line or object per number.

    \b
    Examples:
      bench table
      bench table robustness results/mini
      bench table zeroshot results/mini --format latex
      bench table --encoder "fare*" --where norm=linf --where seed=0
      bench table --all results/mini --write BENCHMARKS.md
    """  # noqa: D301
    from bench.records import load_runs
    from bench.regression import baseline as committed
    from bench.tables import layouts

    known = layouts.names()
    if listing or not (words or everything or document or encoder or task or dataset or where):
        width = max(map(len, known))
        for one, about in layouts.abouts().items():
            say(f"{one.ljust(width)}  {about}")
        return
    if document is not None and style != "text":
        raise UsageError("--write brings the blocks of a Markdown document up to date: leave --format out")
    name, roots = _split(words, known)
    if document is not None and not roots and everything:
        roots = (committed.BASELINE,)
    found = chosen(load_runs(roots or [DEFAULT_OUTPUT]), encoder, task, dataset, where)
    if document is not None:
        committed.write(document, found)
        return
    shown = _filled(None if everything else name or "flat", found)
    say(_joined(shown, style), nl=False)


def _filled(name: str | None, runs: Sequence["Run"]) -> "list[tuple[str, Table]]":
    """The tables of a layout, or of all, with their titles; those of different protocols or norms apart."""
    from bench.config.facts import SUITE_FACTS
    from bench.tables import layouts

    found, problems = [], list[str]()
    wanted = None if name is None else (name,)
    for part_title, part in layouts.kept_apart(runs):
        for one in layouts.tables(part, SUITE_FACTS, wanted, problems):
            found.append((f"{one.title}, {part_title}" if part_title else one.title, one))
    if not found:
        layouts.build(name or "flat", runs, SUITE_FACTS)  # says why there is none
    for problem in problems:
        say_line(f"bench: {problem}", err=True)
    return found


def _joined(shown: Sequence["tuple[str, Table]"], style: str) -> str:
    """Tables one after another, with their titles where there are several; in JSON an array of them."""
    from bench.tables.render import HEADINGS, render

    made = [render(one, style) for _, one in shown]
    if len(made) == 1:
        return made[0]
    if style == "json":
        return "[" + ",\n".join(text.rstrip() for text in made) + "]\n"
    heads = [HEADINGS[style](title) if style in HEADINGS else "" for title, _ in shown]
    return "\n".join(head + text for head, text in zip(heads, made, strict=True))


def _split(words: tuple[str, ...], known: Sequence[str]) -> tuple[str | None, tuple[Path, ...]]:
    """The layout, if the first word names one, and the folders."""
    if words and words[0] in known:
        return words[0], tuple(map(Path, words[1:]))
    if words and "/" not in words[0] and not Path(words[0]).exists():
        raise unknown("layout", words[0], known)
    return None, tuple(map(Path, words))
