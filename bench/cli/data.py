"""``bench data``: dataset files."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from bench import registry
from bench.cli.say import say
from bench.config import load_suite
from bench.data.specs import is_spec, parse, told_apart
from bench.errors import UsageError

if TYPE_CHECKING:
    from bench.config.suite import Suite
    from bench.data.presence import Presence

MISSING = 1


@click.group()
def data() -> None:
    """Dataset files: check what is there, fetch what is missing, export the embedded ones."""


@data.command()
@click.option("--dataset", default=None, help="Names of the suite, comma-separated, or FORMAT:FOLDER. Default: all.")
@click.option("--data-root", type=click.Path(path_type=Path), help="Folder under which the suite's datasets lie.")
@click.option("--suite", default="paper", show_default=True, help="Whose datasets.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(dataset: str | None, data_root: Path | None, suite: str, as_json: bool) -> None:
    """Say which official files are present, which are missing, and where those are published.

    Exits with 1 when something is missing or cannot be read. Never uses the network.

    \b
    Examples:
      bench data check --data-root DIR --dataset textvqa
      bench data check --data-root DIR --suite paper
      bench data check --dataset vqa:my-questions
    """  # noqa: D301
    from bench.data.presence import presence

    found = [presence(name, row, root) for name, row, root in _asked(dataset, data_root, suite)]
    if as_json:
        say(json.dumps([{**asdict(one), "ready": one.ready} for one in found], indent=1))
    else:
        for one in found:
            _show(one)
    sys.exit(0 if all(one.ready for one in found) else MISSING)


@data.command()
@click.option("--dataset", required=True, help="Names of the suite, comma-separated.")
@click.option("--data-root", type=click.Path(path_type=Path), required=True, help="Folder under which datasets lie.")
@click.option("--suite", default="paper", show_default=True, help="Whose datasets.")
@click.option("--quiet", is_flag=True, help="No progress bars.")
def fetch(dataset: str, data_root: Path, suite: str, quiet: bool) -> None:
    """Download the official files that are missing; the one command that uses the network for data.

    What was cut short goes on where it stopped. Files that need a form or a licence are named, with their page; then
    the command exits with 1. Mind the licences: the page of each dataset states its own.

    \b
    Example:
      bench data fetch --data-root DIR --dataset textvqa
    """  # noqa: D301
    from bench.data import fetch as network
    from bench.data.presence import files_needed

    left = 0
    for name, row, root in _asked(dataset, data_root, suite):
        tried = set[str]()
        while missing := [f for f in files_needed(name, row, root) if not f.present and f.url and f.place not in tried]:
            for one in missing:  # a folder of shards says how many there are only once its first files are there
                tried.add(one.place)
                network.fetch(str(one.url), root / one.place, progress=not quiet)
                say(f"{name}: fetched {root / one.place}")
        for one in [f for f in files_needed(name, row, root) if not f.present]:
            left += 1
            say(f"{name}: put {root / one.place} there by hand; {one.page or 'no place is known to load it from'}")
    sys.exit(MISSING if left else 0)


def _asked(dataset: str | None, root: Path | None, suite: str) -> list[tuple[str, Mapping[str, Any], Path]]:
    """Name, row and root of each dataset asked for."""
    known = load_suite(suite)
    names = [part.strip() for part in dataset.split(",")] if dataset else list(known.datasets)
    if not names:
        raise UsageError(f"suite {suite!r} has no datasets")
    return [_found(name, known, root) for name in told_apart(names, root)]


def _found(name: str, suite: "Suite", root: Path | None) -> tuple[str, Mapping[str, Any], Path]:
    if is_spec(name):
        place = parse(name, root, {key: value for plan in suite.tasks.values() for key, value in plan.defaults.items()})
        return place.name, place.row, place.root
    if name not in suite.datasets:
        raise registry.unknown(f"dataset of suite {suite.name!r}", name, suite.datasets)
    if root is None:
        raise UsageError(f"say where the files of {name!r} lie: --data-root DIR")
    return name, suite.datasets[name], root


def _show(found: "Presence") -> None:
    words = f"ready, {found.samples} samples" if found.ready else "NOT READY"
    say(f"{found.name}: {words}")
    for one in found.needed:
        source = "" if one.present or not one.page else f"  <- {one.page}"
        say(f"  {'present' if one.present else 'MISSING'}  {one.place}{source}")
    for fault in found.faults:
        say(f"  FAULT    {fault}")
    for note in found.notes:
        say(f"  note     {note}")


@data.command()
@click.argument("what", metavar="WHAT")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--size", type=int, default=None, help="Samples a dataset. Default: all 1000.")
def export(what: str, directory: Path, size: int | None) -> None:
    """Write the embedded datasets (WHAT: mini) as files in the official formats.

    \b
    Example:
      bench data export mini /tmp/mini && bench run --encoder fare --task vqa --data-root /tmp/mini
    """  # noqa: D301
    for path in cast(list[Path], registry.made("bench.exporters", what, list, directory, size)):
        say(path)
