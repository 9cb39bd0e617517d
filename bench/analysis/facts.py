"""What a suite says of its data and records do not hold; `bench.config` knows it, and the caller hands it in."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.records import RunHeader


def _none(header: RunHeader) -> tuple[str, ...] | None:
    return None


def _no(header: RunHeader) -> bool:
    return False


@dataclass(frozen=True)
class Facts:
    """Questions about a run that its suite answers.

    Attributes:
        optional: whether the run's dataset is run only when it is named, and so is no part of an average.
        targets: the texts that the suite deals out in turn, in the order of the data, to a targeted attack; () where it
            names none; None where the suite is not known.
    """

    optional: Callable[[RunHeader], bool] = _no
    targets: Callable[[RunHeader], tuple[str, ...] | None] = _none
