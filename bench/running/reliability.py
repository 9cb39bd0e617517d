"""Whether the number of a defended run can be relied upon: checks on its records, stored with its other checks.

A defended run is reliable if none of its sanity checks failed; `bench.running.sanity_checks.defence_checks` looks at
its gradients, and this module at what its attacks achieved.
"""

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import median, stdev

from attacks.adaptive import WAYS, way_of
from attacks.checks import SanityCheck
from attacks.presets import AttackStep
from bench.records import CLEAN, Record, RunHeader
from bench.records.worst import worst_records

GAIN = 0.002  # share of the metric's scale by which less knowledge may win; AutoAttack's threshold
FEWEST = 10  # robust samples with a loss curve
UNSETTLED = 0.25  # share of a loss's whole rise that the second half of the steps may bring

Scores = Mapping[str, float]


def reliability_checks(header: RunHeader, steps: Sequence[AttackStep], records: Sequence[Record]) -> list[SanityCheck]:
    """Checks on the records of a defended run."""
    sound = [record for record in records if record.error is None]
    return [_knowledge_helps(header, steps, sound), *_settled(steps, sound)]


def _knowledge_helps(header: RunHeader, steps: Sequence[AttackStep], records: Sequence[Record]) -> SanityCheck:
    """An attack that knows less must not do better than all that know more, taken together."""
    wins = [
        win
        for radius in header.radii
        for name, way in WAYS.items()
        if (better := [other for other, its in WAYS.items() if its.knowledge > way.knowledge])
        if (win := _win(header, steps, records, radius, [name], better)) is not None
    ]
    words = "; ".join(wins) or "no attack does better than all that know more of the defence"
    return SanityCheck("knowledge_helps", not wins, words)


def _win(
    header: RunHeader,
    steps: Sequence[AttackStep],
    records: Sequence[Record],
    radius: float,
    ways: Sequence[str],
    better: Sequence[str],
) -> str | None:
    """By how much a way does better than all better informed ones on the samples it was tried on, if by too much."""
    weaker, stronger = ({s.name for s in steps if s.through in group} for group in (ways, better))
    tried = {record.sample_id for record in records if record.step in weaker}
    if not tried or not stronger:
        return None
    few = [record for record in records if record.sample_id in tried]
    less, more = (_scores(header, few, radius, names) for names in (weaker, stronger))
    sign = 1 if header.worst == "min" else -1
    gains = [sign * (more[sample] - less[sample]) for sample in less.keys() & more.keys()]
    total = len({record.sample_id for record in records})
    gain, noise = sum(gains) / total, _noise(records, gains) / total
    scale = header.ceiling or 100.0
    if gain <= max(GAIN * scale, 2 * noise):
        return None
    return f"at {radius:g}, attacks of the kind {ways[0]!r} win by {gain:.1f} points over all better informed ones"


def _noise(records: Sequence[Record], gains: Sequence[float]) -> float:
    """Standard error of the summed gains of a randomised victim."""
    drawn = any(record.draws is not None for record in records)
    return stdev(gains) * sqrt(len(gains)) if drawn and len(gains) > 1 else 0.0


def _scores(header: RunHeader, records: Sequence[Record], radius: float, steps: set[str]) -> Scores:
    """What samples are left with by these steps alone."""
    counted = [record for record in records if record.step == CLEAN or record.step in steps]
    found = worst_records(header, counted, radius)
    return {sample: record.score for sample, record in found.items() if record.score is not None}


def _settled(steps: Sequence[AttackStep], records: Sequence[Record]) -> list[SanityCheck]:
    """The loss of the best informed steps must have stopped rising on samples that they left robust."""
    defended = [step for step in steps if step.through and way_of(step).defended and step.through != "queries"]
    if not defended:
        return []
    most = max(way_of(step).knowledge for step in defended)
    names = {step.name for step in defended if way_of(step).knowledge == most}
    shares = [share for r in records if r.step in names if (share := late_rise(r)) is not None]
    if len(shares) < FEWEST:
        return []
    share = median(shares)
    detail = f"the second half of the steps brings {share:.0%} of the rise of the loss (median of {len(shares)})"
    return [SanityCheck("loss_settled", share <= UNSETTLED, detail)]


def late_rise(record: Record) -> float | None:
    """Share of the whole rise of the loss that came in the second half of the steps; None where nothing is known."""
    curve = record.loss_curve
    if curve is None or len(curve) < 3 or record.loss is None or not record.choice:
        return None
    rise = record.loss - curve[0]
    return (record.loss - curve[-2]) / rise if rise > 0 else None
