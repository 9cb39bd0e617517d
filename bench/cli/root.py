"""The root command: help, exit codes, and a user's mistake as one line."""

import errno
import os
import sys
from typing import Any

import click

from bench.cli.completion import SHELLS, install_completion
from bench.cli.say import say, say_line
from bench.errors import FailedRunsError, UsageError

DONE, CHECK_FAILED, USAGE = 0, 1, 2


class _Commands(click.Group):
    """Shows a user's mistake as one line, with exit code 2; so too where stdout cannot be written."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        _open_streams()
        try:
            try:
                return super().main(*arguments, **options)
            finally:
                sys.stdout.flush()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EIO) or error.filename is not None:
                raise
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends; Python flushes it then
            say(f"bench: cannot write to stdout: {error.strerror}", err=True)
            sys.exit(USAGE)

    def invoke(self, ctx: click.Context) -> Any:
        from bench.records import RecordsError

        try:
            return super().invoke(ctx)
        except (UsageError, RecordsError) as error:
            first, *others = error.lines if isinstance(error, FailedRunsError) else (error,)
            for line in (f"bench: {first}", *others):
                say_line(line, err=True)
            ctx.exit(USAGE)
        except OSError as error:
            if error.filename is None:  # stdout
                raise
            say_line(
                f"bench: cannot use {error.filename}: {error.strerror}; check the path and its permissions", err=True
            )
            ctx.exit(USAGE)


def _open_streams() -> None:
    """Where the caller has closed a standard stream, open one that leads nowhere.

    A file that is written would else take its number, and with it what C libraries print.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the least number that is free, which is this one
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="robust-vlm-bench")
@click.option(
    "--install-completion",
    type=click.Choice(list(SHELLS)),
    expose_value=False,
    is_eager=True,
    callback=install_completion,
    help="Let a shell complete commands, options and names; then exit.",
)
def main() -> None:
    """Can this vision-language model be fooled? Robustness benchmarks for CLIP encoders.

    \b
    Examples:
      bench run --encoder fare --task vqa
      bench run --encoder clip,tecoa,fare --task all
      bench list encoders
      bench train recipe fare4
    Exit codes: 0 done, 1 a check failed, 2 usage.
    """  # noqa: D301 - \b is click's mark for a paragraph to leave alone
