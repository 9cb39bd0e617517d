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
        self._low, self._high = _bounds(header)
        self._slack = SLACK * self._high if math.isfinite(self._high) else 0.0

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


def _bounds(header: RunHeader) -> tuple[float, float]:
    """Between what the scores of a metric lie: nothing is known of one without a ceiling, CIDEr aside."""
    if header.ceiling is not None:
        return 0.0, header.ceiling
    return (0.0, HIGHEST_CIDER) if header.metric.casefold().startswith("cider") else (-math.inf, math.inf)
