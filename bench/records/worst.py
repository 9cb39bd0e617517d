"""What each sample is left with at a radius: the one place that says so."""

import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import numpy as np

from bench.records.header import RunHeader
from bench.records.run import Run
from bench.records.types import CLEAN, Record

Direction = Literal["min", "max"]
_COMPARE: Mapping[Direction, Callable[[float, float], bool]] = {"min": operator.lt, "max": operator.gt}


def eps_label(eps: float, norm: str = "linf") -> str:
    """The name of a radius: "clean", "4/255", or "0.5 (l2)"."""
    if not eps:
        return "clean"
    return f"{eps:g}/255" if norm == "linf" else f"{eps:g} ({norm})"


def is_worse(worst: Direction, score: float, than: float) -> bool:
    """Whether a score is strictly worse for the model than another; `worst` is where the attacker pushes scores."""
    return bool(_COMPARE[worst](score, than))


Counts = Callable[[float, float], bool]
"""Whether what was recorded at one radius counts at another."""


def up_to(recorded: float, radius: float) -> bool:
    """Count what was recorded at all smaller radii: a point in the smaller ball is in the larger."""
    return recorded <= radius


def by_itself(recorded: float, radius: float) -> bool:
    """Count each radius by itself, and the clean record at all."""
    return recorded in (0, radius)


def counts_of(header: RunHeader) -> Counts:
    """How the radii of a run count."""
    return up_to if header.cumulative_radii else by_itself


class WorstSoFar:
    """The record to which each sample owes what it is left with, as records come in.

    The worst at a radius is taken over the clean record and all attacks whose radius counts there. Of equal ones it is
    the record that came first. Errors do not count. Scores of a randomised victim are means over draws, and the draws
    that choose the worst are not those that score it: see `Record.choice`.
    """

    def __init__(self, worst: Direction, counts: Counts = up_to) -> None:
        self._worse, self._counts = _COMPARE[worst], counts
        self._found: dict[str, list[tuple[float, float, Record]]] = {}  # by sample: radius, score and record

    def add(self, record: Record) -> bool:
        """Take a record in; returns whether it leaves its sample worse off, at its radius, than all before it."""
        score = _counting_score(record)
        if score is None:
            return False
        found = self._found.setdefault(record.sample_id, [])
        for radius, other, _ in found:
            if self._counts(radius, record.radius) and not self._worse(score, other):
                return False
        found.append((record.radius, score, record))
        return True

    def at(self, sample_id: str, radius: float) -> Record | None:
        """The record that leaves a sample worst off at a radius; None if there is none."""
        best: tuple[float, Record] | None = None
        for other, score, record in self._found.get(sample_id, ()):
            if self._counts(other, radius) and (best is None or self._worse(score, best[0])):
                best = score, record
        return best and best[1]


def _counting_score(record: Record) -> float | None:
    """What a record is compared by, where it counts: an error does not, and at radius 0 only the clean one does."""
    return record.choice if record.error is None and (record.radius > 0 or record.step == CLEAN) else None


def worst_records(header: RunHeader, records: Iterable[Record], radius: float) -> dict[str, Record]:
    """The record to which each sample owes what it is left with at radius `radius`: sample id -> record.

    Samples in `unscored` are absent.

    Args:
        header: The run's header: its radii and the attacker's direction.
        records: The run's records.
        radius: Radius in 1/255 of the pixel range (l2: plain units); 0 for the clean records.

    Raises:
        ValueError: If the run has no such radius.
    """
    _require_radius(header, radius)
    counts = counts_of(header)
    records = [record for record in records if counts(record.radius, radius)]
    so_far, failed = WorstSoFar(header.worst, counts), False
    for record in records:
        so_far.add(record)
        failed = failed or (record.error is not None and record.radius == radius)
    clean = (record.sample_id for record in records if record.step == CLEAN and record.error is None)
    worst = {sample: found for sample in clean if (found := so_far.at(sample, radius)) is not None}
    for sample in unscored(header, records, radius) if failed else ():
        worst.pop(sample, None)
    return worst


def worst_scores(header: RunHeader, records: Iterable[Record], radius: float) -> dict[str, float]:
    """The score that each sample is left with at radius `radius`: sample id -> score; else as `worst_records`."""
    worst = worst_records(header, records, radius)
    return {sample: record.score for sample, record in worst.items() if record.score is not None}


def worst_choices(header: RunHeader, records: Iterable[Record], radius: float) -> dict[str, float]:
    """What tells whether samples are broken (`Record.choice` of the worst); else as `worst_records`."""
    worst = worst_records(header, records, radius)
    return {sample: record.choice for sample, record in worst.items() if record.choice is not None}


def scores_at(run: Run, radius: float) -> dict[str, float]:
    """`worst_scores` of a run that was read, from its columns; computed once per radius, however often asked.

    Raises:
        ValueError: If the run has no such radius.
    """
    if radius not in run.scores:
        # columns hold no draws, which choose the worst attack on a randomised victim
        defended = run.header.defence is not None
        run.scores[radius] = worst_scores(run.header, run.records, radius) if defended else _scores(run, radius)
    return run.scores[radius]


def last_records(header: RunHeader, records: Iterable[Record], radius: float) -> dict[str, Record]:
    """The last attack on each sample that counts at a radius, whether it did harm or not: sample id -> record.

    It is the clean record of a sample that no attack has been tried on. Errors do not count.

    Raises:
        ValueError: If the run has no such radius.
    """
    _require_radius(header, radius)
    counts, found = counts_of(header), dict[str, Record]()
    for record in records:
        if _counting_score(record) is None or not counts(record.radius, radius):
            continue
        if record.sample_id not in found or found[record.sample_id].radius <= record.radius:
            found[record.sample_id] = record
    return found


def _scores(run: Run, radius: float) -> dict[str, float]:
    """Of each sample with a clean score the worst that counts; unless at that radius there are errors alone."""
    _require_radius(run.header, radius)
    columns, counts, size = run.columns, counts_of(run.header), len(run.columns.samples)
    here = columns.radius == radius
    counting = [recorded for recorded in np.unique(columns.radius) if counts(float(recorded), radius)]
    chosen = columns.scored & np.isin(columns.radius, counting) & ((columns.radius > 0) | columns.clean)
    pick, start = (np.minimum, np.inf) if run.header.worst == "min" else (np.maximum, -np.inf)
    worst = np.full(size, start)
    pick.at(worst, columns.sample[chosen], columns.score[chosen])
    kept = np.zeros(size, bool)
    kept[columns.sample[columns.scored & columns.clean]] = True
    if radius > 0:
        failed, attacked = np.zeros(size, bool), np.zeros(size, bool)
        failed[columns.sample[here & ~columns.clean & ~columns.scored]] = True
        attacked[columns.sample[here & ~columns.clean & columns.scored]] = True
        kept &= attacked | ~failed
    return {columns.samples[place]: float(worst[place]) for place in np.flatnonzero(kept)}


def groups_at(run: Run) -> dict[str, str]:
    """`groups_of` of a run that was read."""
    return dict(zip(run.columns.samples, run.columns.groups, strict=True))


def kept_records(header: RunHeader, records: Iterable[Record]) -> dict[tuple[str, float], Record]:
    """(sample id, radius) -> the record whose image a run keeps.

    It is the last at that radius that left the sample worse off than the clean image and everything recorded before
    it at radii that count at its own.
    """
    so_far, clean, kept = WorstSoFar(header.worst, counts_of(header)), set(), {}
    for record in records:
        worse = so_far.add(record)
        if worse and record.step != CLEAN and record.sample_id in clean:
            kept[record.sample_id, record.radius] = record
        if record.step == CLEAN and record.error is None:
            clean.add(record.sample_id)
    return kept


def worst_attacks(header: RunHeader, records: Iterable[Record]) -> dict[tuple[str, float], Record]:
    """(sample id, radius) -> the attack at that very radius that left the least; an error where there is only that."""
    found: dict[tuple[str, float], Record] = {}
    for record in records:
        place = record.sample_id, record.radius
        if record.step != CLEAN and _is_preferred(header.worst, record, found.get(place)):
            found[place] = record
    return found


def _is_preferred(worst: Direction, record: Record, to: Record | None) -> bool:
    if to is None or to.choice is None or record.choice is None:
        return to is None or (to.choice is None and record.choice is not None)
    return is_worse(worst, record.choice, to.choice)


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
