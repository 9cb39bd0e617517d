"""Options of commands that ask victims: those that only a chat endpoint has."""

from collections.abc import Callable
from typing import Any

import click

from bench.config.request import about, flag

_METAVARS = {"repeats": "N", "rpm": "N", "concurrency": "N", "max_cost": "AMOUNT", "price": "IN,OUT"}


def asking(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options --repeats, --rpm, --concurrency, --max-cost and --price."""
    for name, metavar in reversed(_METAVARS.items()):
        command = click.option(flag(name), name, metavar=metavar, help=about()[name])(command)
    return command
