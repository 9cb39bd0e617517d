"""Comparing two runs, or two sets of runs, sample by sample."""

import re
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from math import fsum
from typing import Any

from bench.analysis.stats import Paired, Scores, holm, paired
from bench.errors import UsageError
from bench.records import Run
from bench.records.header import differences
from bench.records.worst import eps_label, groups_at, scores_at, worst_attacks, worst_records

MEANING = ("task", "metric", "worst")  # runs that differ here do not measure the same thing
CONDITIONS = (
    "dataset",
    "dataset_fingerprint",
    "task_version",
    "model",
    "protocol",
    "norm",
    "radii",
    "attack",
    "attack_steps",
)
SAMPLES, RUNS, ALL = "samples", "runs", "all"
ALLOWABLE = (*CONDITIONS, SAMPLES, RUNS, ALL)


@dataclass(frozen=True)
class Flip:
    """A sample that scored differently, with what the model answered in each run's worst case."""

    sample_id: str
    a_score: float
    b_score: float
    a_answer: str
    b_answer: str


@dataclass(frozen=True)
class Comparison:
    """Two runs at one radius, on the samples scored in both.

    Attributes:
        name: Such as "vqa / mini-vqa at 4/255".
        a: The first run.
        b: The second run.
        radius: Radius in 1/255 (l2: plain units); 0 for clean.
        a_value: Mean score of the first run.
        b_value: Mean score of the second.
        change: The paired comparison; its difference is b - a.
        p_holm: Its p-value corrected for the number of comparisons.
        left_out: Samples that only one of the two has scored.
        flips: The samples that scored differently, the largest differences first, then by the numbers in their ids.
    """

    name: str
    a: Run
    b: Run
    radius: float
    a_value: float
    b_value: float
    change: Paired
    p_holm: float
    left_out: int
    flips: tuple[Flip, ...]

    @property
    def rose(self) -> int:
        """Samples that score more in the second run."""
        return sum(flip.b_score > flip.a_score for flip in self.flips)

    def to_dict(self) -> dict[str, Any]:
        """JSON data: every number of the comparison, both runs, all flips."""
        header, change = self.a.header, self.change
        sides = {
            side: {
                "directory": str(run.directory),
                "encoder": run.header.encoder,
                "attack": run.header.attack,
                "partial": run.header.partial,
                "value": value,
            }
            for side, run, value in (("a", self.a, self.a_value), ("b", self.b, self.b_value))
        }
        return {
            "task": header.task,
            "dataset": header.dataset,
            "metric": header.metric,
            "norm": header.norm,
            "radius": self.radius,
            **sides,
            "difference": change.difference,
            "low": change.low,
            "high": change.high,
            "p": change.p,
            "p_holm": self.p_holm,
            "test": change.test,
            "n": change.n,
            "left_out": self.left_out,
            "flips": [asdict(flip) for flip in self.flips],
        }


def compare(a: Sequence[Run], b: Sequence[Run], allow: Collection[str] = ()) -> list[Comparison]:
    """Compare the runs of two sets pairwise, clean and at each radius that both have.

    One run on each side is a pair as it is. Otherwise runs pair by task and dataset, and by encoder, attack, suite and
    defence where a side has several of them.

    Args:
        a: The first set.
        b: The second set.
        allow: What may differ, of `ALLOWABLE`: fields of the header; "samples" to compare on the samples that both
            have scored; "runs" to leave out runs without a partner; "all".

    Raises:
        UsageError: If a pair differs in what is not allowed, or runs cannot be paired one to one.
    """
    if unknown := [name for name in allow if name not in ALLOWABLE]:
        raise UsageError(f"cannot allow a difference in {unknown[0]!r}; known: {', '.join(ALLOWABLE)}")
    allowed = set(ALLOWABLE if ALL in allow else allow)
    results = []
    for left, right in _pairs(a, b, RUNS in allowed):
        _refuse_differences(left, right, allowed)
        for eps in [0.0, *sorted(set(left.header.radii) & set(right.header.radii) - {0.0})]:
            results.append(_at(left, right, eps, SAMPLES in allowed))
    adjusted = holm([result.change.p for result in results])
    return [replace(result, p_holm=p) for result, p in zip(results, adjusted, strict=True)]


def attacked_against_clean(run: Run, radius: float) -> Paired | None:
    """The answers to a radius' attacked images alone, against those to their clean images; None where there are none.

    An answer that an attack made better counts as such: nothing is taken at its worst.
    """
    attacked = worst_attacks(run.header, run.records)
    scores = {s: r.score for (s, at), r in attacked.items() if at == radius and r.error is None and r.score is not None}
    clean = scores_at(run, 0.0)
    if not scores.keys() & clean.keys():
        return None
    return paired(scores, clean, groups_at(run), ceiling=run.header.ceiling)


def _pairs(a: Sequence[Run], b: Sequence[Run], lone_allowed: bool) -> list[tuple[Run, Run]]:
    if len(a) == len(b) == 1:
        return [(a[0], b[0])]
    several = [  # a defence or a model only where some runs have another, not none
        name
        for name in ("encoder", "attack", "suite", "defence", "model")
        if any(len({getattr(r.header, name) for r in side} - {None}) > 1 for side in (a, b))
    ]
    sides = [_keyed(side, ("task", "dataset", *several)) for side in (a, b)]
    lone = sorted(sides[0].keys() ^ sides[1].keys())
    if lone and not lone_allowed:
        side, other = ("first", "second") if lone[0] in sides[0] else ("second", "first")
        raise UsageError(
            f"{' / '.join(lone[0])} is in the {side} set of runs only ({len(lone)} such); name single runs, add it to "
            f"the {other}, or leave such runs out with --allow runs"
        )
    if not sides[0].keys() & sides[1].keys():
        raise UsageError("the two sets of runs have no task and dataset in common: there is nothing to compare")
    return [(run, sides[1][key]) for key, run in sides[0].items() if key in sides[1]]


def _keyed(runs: Sequence[Run], names: Sequence[str]) -> dict[tuple[str, ...], Run]:
    found: dict[tuple[str, ...], Run] = {}
    for run in runs:
        key = tuple(str(getattr(run.header, name)) for name in names)
        if key in found:
            places = f"{found[key].directory} and {run.directory}"
            raise UsageError(f"two runs of {' / '.join(key)} on one side, name the one to compare: {places}")
        found[key] = run
    return found


def _refuse_differences(a: Run, b: Run, allowed: set[str]) -> None:
    fixed = [name for name in (*MEANING, *CONDITIONS) if name not in allowed]
    for field, first, second in differences(a.header, b.header, fixed):
        name = field.partition(".")[0]
        remedy = f"; --allow {name} compares them all the same" if name in CONDITIONS else ""
        raise UsageError(
            f"{a.directory} and {b.directory} cannot be compared: {field} is {first!r} in the first and {second!r} in "
            f"the second{remedy}"
        )


def _at(a: Run, b: Run, eps: float, subset_allowed: bool) -> Comparison:
    header = a.header
    where = f" at {eps_label(eps, header.norm)}" if eps else ", clean"
    name = f"{header.task} / {header.dataset}{where}"
    before, after = (scores_at(run, eps) for run in (a, b))
    shared, lone = before.keys() & after.keys(), sorted(before.keys() ^ after.keys())
    if lone and not subset_allowed:
        raise UsageError(
            f"{name}: sample {lone[0]} is scored in one of {a.directory} and {b.directory} only ({len(lone)} such); "
            f"--allow {SAMPLES} compares the {len(shared)} others"
        )
    if not shared:
        raise UsageError(f"{name}: {a.directory} and {b.directory} share no scored sample")
    first, second = ({sample: side[sample] for sample in shared} for side in (before, after))
    change = paired(second, first, groups_at(a), ceiling=header.ceiling)
    flips = _flips(a, b, eps, first, second, change.flipped)
    a_value, b_value = (fsum(side.values()) / len(shared) for side in (first, second))
    return Comparison(name, a, b, eps, a_value, b_value, change, change.p, len(lone), flips)


def _flips(a: Run, b: Run, eps: float, first: Scores, second: Scores, flipped: Collection[str]) -> tuple[Flip, ...]:
    """The samples that scored differently with the answers, the largest differences first."""
    chosen = set(flipped)
    said = [worst_records(run.header, run.records_of(chosen), eps) for run in (a, b)]
    flips = [Flip(s, first[s], second[s], *(side[s].prediction for side in said)) for s in flipped]
    return tuple(sorted(flips, key=lambda flip: (-abs(flip.b_score - flip.a_score), _natural(flip.sample_id))))


def _natural(text: str) -> tuple[tuple[int, str, str], ...]:
    """A sort key with which "q9" comes before "q10"."""
    key = []
    for place, part in enumerate(re.split(r"([0-9]+)", text)):  # every other part is a number
        digits = part.lstrip("0") if place % 2 else ""
        key.append((len(digits), digits, part))  # of two numbers the longer is the larger
    return tuple(key)
