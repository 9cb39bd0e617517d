"""``bench status``: how a sweep is doing."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli.root import CHECK_FAILED
from bench.cli.say import say
from bench.config.request import DEFAULT_OUTPUT
from bench.progress import duration

if TYPE_CHECKING:
    from bench.analysis.status import State, Status


@click.command()
@click.argument("folder", metavar="[DIR]", type=click.Path(path_type=Path), default=DEFAULT_OUTPUT)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout and nothing else.")
def status(folder: Path, as_json: bool) -> None:
    """Show what is done, running, failed and waiting, and the time left.

    Reads the run directories under DIR (default: results/runs) and what the commands that fill it have noted; works
    from any machine that sees the folder, while the runs go on. A run is "stopped" if it has begun and nothing writes
    it: the command that began it resumes it.

    \b
    Examples:
      bench status
      bench status results/runs/paper --json
    Exit codes: 0 nothing failed, 1 a run failed, 2 usage.
    """  # noqa: D301
    from bench.analysis.status import FAILED, status

    found = status(folder)
    say(json.dumps(found.as_json(), indent=1) if as_json else _text(found, folder))
    if found.count(FAILED):
        click.get_current_context().exit(CHECK_FAILED)


def _text(found: "Status", folder: Path) -> str:
    from bench.analysis.status import DONE, STATES

    counts = ", ".join(f"{count} {state}" for state in STATES if (count := found.count(state)))
    runs = f"{len(found.states)} run{'s' if len(found.states) > 1 else ''}: {counts}"
    left = "time left unknown" if found.seconds_left is None else f"about {duration(found.seconds_left)} left"
    last = runs if found.count(DONE) == len(found.states) else f"{runs}; {left}"
    return "\n".join([*(_line(one, folder) for one in found.states if one.state != DONE), last])


def _line(one: "State", folder: Path) -> str:
    share = f"{one.evaluations / max(1, one.evaluations + one.left):4.0%}"
    words = [f"{one.state:8}", share, str(one.directory.relative_to(folder))]
    if one.quiet is not None:
        words.append(f"last record {duration(one.quiet)} ago")
    return "  ".join([*words, *([one.why] if one.why else [])])
