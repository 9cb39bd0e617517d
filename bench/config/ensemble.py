"""Encoders that images are made on together: which, and with what weights. Never imports torch."""

from collections.abc import Sequence

from bench.config.request import Request, flag
from bench.errors import UsageError

MEAN = "mean"
JOINED = "+"  # between the names of an ensemble's members


def sources(names: Sequence[str], request: Request) -> list[tuple[str, ...]]:
    """What images are made on, run by run: each surrogate by itself, or all of them together.

    Raises:
        UsageError: an ensemble is asked for, and there are too few encoders, or weights that do not fit them.
    """
    if request.ensemble is None:
        return [(name,) for name in names] or [()]
    if len(names) < 2:
        raise UsageError(f"{flag('ensemble')} is of several encoders: name them with {flag('surrogate')} A,B")
    weights(request.ensemble, len(names))
    return [tuple(names)]


def weights(text: str | None, count: int) -> tuple[float, ...]:
    """The share that each of some losses has; they sum to one.

    >>> weights("2,1,1", 3)
    (0.5, 0.25, 0.25)

    Raises:
        UsageError: the text is neither "mean" nor one number above 0 for each.
    """
    if text is None or text == MEAN:
        return (1 / count,) * count
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if len(found) != count or not all(0 < weight < float("inf") for weight in found):
        raise UsageError(
            f"{flag('ensemble')} takes {MEAN!r}, or a number above 0 for each of the {count} encoders, not {text!r}"
        )
    return tuple(weight / sum(found) for weight in found)
