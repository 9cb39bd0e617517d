"""Errors a user can fix; the command line shows their message without a traceback."""


class UsageError(ValueError):
    """What was asked for cannot be done; the message names the thing and the remedy."""
