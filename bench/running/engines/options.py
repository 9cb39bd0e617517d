"""What engines make of the options after "?" in ``--on``."""

from bench.errors import UsageError


def count(text: str, engine: str, option: str) -> int:
    """A whole number from 1.

    Raises:
        UsageError: it is none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--on {engine}: {option} is a whole number from 1, not {text!r}")
    return int(text)


def share(text: str, engine: str, option: str) -> float:
    """A number from 0.

    Raises:
        UsageError: it is none.
    """
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found < 1e4:
        raise UsageError(f"--on {engine}: {option} is a number from 0, not {text!r}")
    return found
