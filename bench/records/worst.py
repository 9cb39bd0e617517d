"""What each sample is left with at a radius: the one place that says so."""

import operator
from collections.abc import Iterable

from bench.records.header import RunHeader
from bench.records.types import CLEAN, Record


def eps_label(eps: float, norm: str = "linf") -> str:
    """The name of a radius: "clean", "4/255", or "0.5 (l2)"."""
    if not eps:
        return "clean"
    return f"{eps:g}/255" if norm == "linf" else f"{eps:g} ({norm})"


def worst_scores(header: RunHeader, records: Iterable[Record], radius: float) -> dict[str, float]:
    """The score that each sample is left with at radius `radius`: sample id -> score.

    The worst over its clean record and every attack record with a radius up to `radius`, for a point in
    the smaller ball is in the larger. Samples in `unscored` are absent.

    Args:
        header: The run's header: its radii and the attacker's direction.
        records: The run's records.
        radius: Radius in 1/255 of the pixel range; 0 for the clean scores.

    Raises:
        ValueError: If the run has no such radius.
    """
    _require_radius(header, radius)
    records = list(records)
    scores = {r.sample_id: r.score for r in records if r.step == CLEAN and r.error is None and r.score is not None}
    worse = operator.lt if header.worst == "min" else operator.gt
    for record in records if radius else ():
        if 0 < record.radius <= radius and record.error is None and record.sample_id in scores:
            score = record.score
            if score is not None and worse(score, scores[record.sample_id]):
                scores[record.sample_id] = score
    if radius and any(record.error is not None and record.radius == radius for record in records):
        for sample in unscored(header, records, radius):
            scores.pop(sample, None)
    return scores


def _require_radius(header: RunHeader, radius: float) -> None:
    if radius != 0 and radius not in header.radii:
        raise ValueError(f"no radius {radius}/255 in this run; it has {', '.join(map(str, header.radii))}")


def unscored(header: RunHeader, records: Iterable[Record], radius: float) -> dict[str, str]:
    """The samples that have records but no score at radius `radius`: sample id -> reason.

    They lack a clean record, or every attack on them at that radius ended in an error.

    Raises:
        ValueError: If the run has no such radius.
    """
    _require_radius(header, radius)
    seen: set[str] = set()
    clean: set[str] = set()
    attacked: set[str] = set()
    failed: dict[str, str] = {}
    for record in records:
        seen.add(record.sample_id)
        if record.step == CLEAN:
            if record.error is None:
                clean.add(record.sample_id)
        elif record.radius == radius and radius > 0:
            if record.error is None:
                attacked.add(record.sample_id)
            else:
                failed[record.sample_id] = record.error
    reasons = dict.fromkeys(sorted(seen - clean), "no clean score")
    reasons |= {s: f"attack failed: {error}" for s, error in failed.items() if s in clean - attacked}
    return reasons


def groups_of(records: Iterable[Record]) -> dict[str, str]:
    """Sample id -> group.

    Raises:
        ValueError: If a sample has two groups.
    """
    groups: dict[str, str] = {}
    for record in records:
        if groups.setdefault(record.sample_id, record.group) != record.group:
            raise ValueError(f"sample {record.sample_id!r} has two groups")
    return groups
