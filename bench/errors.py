"""Errors a user can fix; the command line shows their message without a traceback."""


class UsageError(ValueError):
    """What was asked for cannot be done; the message names the thing and the remedy."""


class StoppedError(UsageError):
    """A run stops on purpose, such as at a limit of cost; the same command goes on where it stopped."""
