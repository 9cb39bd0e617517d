"""Options of commands that show finished runs: which of them."""

from collections.abc import Callable, Sequence
from typing import Any

import click

from bench.analysis.choose import KEYS, choose
from bench.errors import UsageError
from bench.records import Run

_OPTIONS = (
    click.option(
        "--encoder", default=None, help="Only runs of these encoders, comma-separated; * stands for any text."
    ),
    click.option("--task", default=None, help="Only these tasks."),
    click.option("--dataset", default=None, help="Only these datasets."),
    click.option(
        "--where",
        multiple=True,
        metavar="KEY=VALUE",
        help=f"Only runs whose KEY is VALUE, e.g. protocol=paper or seed=0,1; may be repeated. KEY: {', '.join(KEYS)}.",
    ),
)


def choosing(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options --encoder, --task, --dataset and --where."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def chosen(
    runs: Sequence[Run], encoder: str | None, task: str | None, dataset: str | None, where: Sequence[str]
) -> list[Run]:
    """The runs that the options choose.

    Raises:
        UsageError: no run fits, or a KEY is unknown; says what there is.
    """
    named: list[tuple[str, Any]] = [("encoder", encoder), ("task", task), ("dataset", dataset)]
    return choose(runs, [*((key, value) for key, value in named if value is not None), *map(_pair, where)])


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--where takes KEY=VALUE, such as protocol=paper, got {text!r}")
    return key.strip(), value.strip()
