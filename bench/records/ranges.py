"""Which values a record can have in a run with a given header."""

import math

from bench.records.header import RunHeader
from bench.records.types import CLEAN, Record

HIGHEST_CIDER = 1000.0  # CIDEr-D is at most 10 (Vedantam et al. 2015, arXiv 1411.5726); scores are CIDEr x 100
SLACK = 1e-6  # of a sum in floating point, relative
ROUNDING = 1e-3  # of a distance in float32, relative to the radius


class Ranges:
    """What the values of a run's records lie between."""

    def __init__(self, header: RunHeader) -> None:
        self._metric, self._radii = header.metric, frozenset(header.radii)
        self._low, self._high, self._slack = bounds(header)

    def fault(self, record: Record) -> str | None:
        """What of a record cannot be, in words; None if all of it can."""
        if record.step != CLEAN and record.radius not in self._radii:
            return (
                f"radius is {record.radius:g}, and the run's are {', '.join(map(str, sorted(self._radii))) or 'none'}"
            )
        if record.error is not None:
            return None
        scores = [(name, getattr(record, name)) for name in ("score", "png_score", "screen")]
        for field, score in (*scores, *(("a draw", score) for score in record.draws or ())):
            if score is not None and not self._low - self._slack <= score <= self._high + self._slack:
                return f"{field} is {score:g}, and {self._metric!r} ranges from {self._low:g} to {self._high:g}"
        if record.distance > record.radius * (1 + ROUNDING):
            return f"distance is {record.distance:g}, beyond the radius {record.radius:g}"
        return None


def bounds(header: RunHeader) -> tuple[float, float, float]:
    """Between what the scores of a metric lie, and by how much rounding may leave that.

    Nothing is known of a metric without a ceiling, CIDEr aside.
    """
    low, high = (0.0, header.ceiling) if header.ceiling is not None else (-math.inf, math.inf)
    if header.ceiling is None and header.is_cider:
        low, high = 0.0, HIGHEST_CIDER
    return low, high, SLACK * high if math.isfinite(high) else 0.0
