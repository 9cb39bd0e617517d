"""Errors a user can fix; the command line shows their message without a traceback."""

from collections.abc import Sequence


class UsageError(ValueError):
    """What was asked for cannot be done; the message names the thing and the remedy."""


class StoppedError(UsageError):
    """A run stops on purpose, such as at a limit of cost; the same command goes on where it stopped."""


class FailedRunsError(UsageError):
    """Runs failed; the text has a line for each, below one that says so."""

    def __init__(self, said: str, lines: Sequence[str]) -> None:
        super().__init__("\n".join((said, *lines)))
        self.lines = (said, *lines)
