"""Radii of attacks as users write them."""

import math
from collections.abc import Sequence

from bench.errors import UsageError

NORMS = ("linf", "l2")
HOW_TO_WRITE = {"linf": "in 1/255, for example --eps 2,4 or 4/255", "l2": "in plain l2 units, for example --eps 0.5"}


def parse_eps(text: str | float | Sequence[str | float], norm: str = "linf") -> tuple[float, ...]:
    """Radii, ascending: "2,4", "4/255", 4 or [2, 4] in 1/255 for "linf", "0.5" in plain units for "l2".

    Raises:
        UsageError: not a number, not above 0, or such that it must be a slip.
    """
    parts = text.replace(",", " ").split() if isinstance(text, str) else text
    radii = [_radius(part, norm) for part in ([parts] if isinstance(parts, int | float) else parts)]
    if not radii:
        raise UsageError(f"no eps given; write it {HOW_TO_WRITE[norm]}")
    return tuple(sorted(set(radii)))


def _radius(part: str | float, norm: str) -> float:
    bare = part.removesuffix("/255") if isinstance(part, str) and norm == "linf" else part
    try:
        if isinstance(bare, str) and ("_" in bare or not bare.isascii()):
            raise ValueError(bare)  # Python reads "1_0" as ten, and digits of every script
        value = float(bare)
    except (ValueError, OverflowError):
        raise UsageError(f"eps {part!r} is not a number; write it {HOW_TO_WRITE[norm]}") from None
    if not math.isfinite(value) or value <= 0:
        raise UsageError(f"eps must be above 0 (the clean score is always reported), got {part!r}")
    if norm == "linf" and value < 0.1:
        raise UsageError(f"eps is counted in 1/255: {part!r} means {value}/255; did you mean {value * 255:.3g}?")
    if norm == "linf" and value > 255:
        raise UsageError(f"eps {part!r} exceeds the pixel range; it is counted in 1/255")
    return value
