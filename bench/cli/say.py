"""What commands print: everything goes through here, so that no text from outside reaches the terminal as a command."""

import click

from bench.trust.text import for_terminal


def say(text: object = "", *, err: bool = False, nl: bool = True) -> None:
    """Print a text with its control characters escaped, to stdout or stderr."""
    click.echo(for_terminal(str(text)), err=err, nl=nl)
