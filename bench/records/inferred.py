"""Scores that follow from a larger radius, of samples that the attack there left as they were.

The smaller ball lies in the larger one, so that what no image of the larger one changes, none of the smaller one does.
That is so of all images, and an attack tries some: an inferred score says that the attack in the larger ball failed, as
any robust score does, and one in the smaller ball might have found what it missed. A score that was lowered, and yet
not so far that the sample is broken, lies in the smaller ball somewhere between that and the clean one: nothing is
inferred there, nor from an error, nor from means over draws, which are equal by chance only.
"""

from collections.abc import Iterable, Sequence

from bench.records.header import RunHeader
from bench.records.types import CLEAN, Record
from tasks.protocol import ASCENDING


def inferred(header: RunHeader, records: Iterable[Record], radius: float) -> dict[str, float]:
    """The samples whose score at a radius is inferred: sample id -> the larger radius that it follows from."""
    if header.radii_order == ASCENDING or radius == 0:
        return {}
    by_sample: dict[str, list[Record]] = {}
    for record in records:
        by_sample.setdefault(record.sample_id, []).append(record)
    found = {sample: settling_radius(of_sample, radius) for sample, of_sample in by_sample.items()}
    return {sample: larger for sample, larger in found.items() if larger is not None}


def settling_radius(records: Sequence[Record], radius: float) -> float | None:
    """The larger radius from which a sample's score at a radius follows; None where it was attacked, or is to be.

    Args:
        records: of one sample.
        radius: as recorded.
    """
    attacked = {record.radius for record in records if record.step != CLEAN}
    larger = min((other for other in attacked if other > radius), default=None)
    if radius in attacked or larger is None:
        return None
    return larger if is_unchanged(records, larger) else None


def is_unchanged(records: Iterable[Record], radius: float) -> bool:
    """Whether every attack on a sample at a radius left it exactly its clean score, and there was one.

    Args:
        records: of one sample.
        radius: as recorded.
    """
    latest = {record.key: record for record in records if record.step == CLEAN or record.radius == radius}
    clean = [record.score for record in latest.values() if record.step == CLEAN]
    attacks = [record for record in latest.values() if record.step != CLEAN]
    same = all(r.error is None and r.draws is None and [r.score] == clean for r in attacks)
    return bool(attacks) and same
