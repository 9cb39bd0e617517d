"""What commands print: everything goes through here, so that no text from outside reaches the terminal as a command."""

import click

from bench.trust.text import for_terminal, on_one_line


def say(text: object = "", *, err: bool = False, nl: bool = True) -> None:
    """Print a text with its control characters escaped, to stdout or stderr."""
    click.echo(for_terminal(str(text)), err=err, nl=nl)


def say_line(text: object, *, err: bool = False) -> None:
    """Print a text in one line: a name with a line end in it must not look like a line of the command's own."""
    say(on_one_line(str(text)), err=err)
