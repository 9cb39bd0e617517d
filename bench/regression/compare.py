"""The regression gate: has anything fallen below its baseline?"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bench.analysis.stats import Alternative, Paired, holm, paired
from bench.errors import UsageError
from bench.records import Run, RunHeader
from bench.records.header import differences
from bench.records.worst import eps_label, groups_at, scores_at

FELL_BELOW = 0.01  # Holm-corrected p-value under which a drop fails the gate
COMPARABLE = ("task_version", "metric", "worst", "norm", "model", "protocol", "attack_steps")
RunKey = tuple[str, str, str, str, str, str, str]


@dataclass(frozen=True)
class Finding:
    """What the gate found of one run at one radius.

    Attributes:
        name: Such as "fare / vqa / mini-vqa at 4/255".
        ok: Whether the gate passes.
        outcome: "ok", "fell", "rose", "dearer", "added", "missing", "partial", "stale", "not comparable" or
            "not credible".
        words: The outcome with its numbers; p-values are one-sided and Holm-corrected.
    """

    name: str
    ok: bool
    outcome: str
    words: str


@dataclass(frozen=True)
class _Comparison:
    """New and old scores of the same samples, turned such that a fall is bad; `paired` is new - old."""

    name: str
    old: float
    new: float
    change: Paired
    lower_is_better: bool
    same_weights: bool


def compare_to_baseline(
    new_runs: Iterable[Run], baseline_runs: Iterable[Run], *, allow_limit: bool = False, seed: int = 0
) -> list[Finding]:
    """Compare runs with their baselines, sample by sample.

    Runs are paired by suite, encoder, task, dataset, attack, defence and vision-language model, at each radius and
    clean.
    A comparison fails if the score moved the attacker's way and the one-sided paired test, Holm-corrected over all
    comparisons, has p < 0.01. Between runs of the very same weights the test is two-sided and a rise fails too: then
    it is the attack that has become weaker. What cannot be compared fails too: a missing baseline, a missing run or
    radius, a partial run, an unscored sample, another task version, metric, model, protocol, attack or data. So does
    a run whose own sanity checks failed where those of its baseline did not: a broken attack looks like a robust model.

    Args:
        new_runs: The new runs.
        baseline_runs: The runs to compare them with; they must be whole.
        allow_limit: Compare a new run with --limit on the samples that it was to score; it must have scored them all.
        seed: Seed of the intervals.

    Raises:
        UsageError: If two runs of one side have the same place.
    """
    old = by_place(baseline_runs)
    new = _beside(by_place(new_runs), old)
    if not old:
        return [Finding("baseline", False, "missing", "there is no baseline run: nothing was checked")]
    results: list[Finding | _Comparison] = []
    for key in dict.fromkeys([*old, *new]):
        if key not in old:
            results.append(Finding(_name(key), False, "missing", f"{_name(key)} has no baseline"))
        elif key not in new:
            results.append(Finding(_name(key), False, "missing", f"{_name(key)} was not run"))
        else:
            results += _compare_runs(_name(key), new[key], old[key], allow_limit, seed)
    adjusted = iter(holm([r.change.p for r in results if isinstance(r, _Comparison)]))
    return [_conclude(r, next(adjusted)) if isinstance(r, _Comparison) else r for r in results]


def compare_gradients(new_runs: Iterable[Run], baseline_runs: Iterable[Run], most: float) -> list[Finding]:
    """Compare what attacks cost: gradient evaluations per sample, over the samples that the new run has.

    Says nothing of runs that `compare_to_baseline` cannot compare, nor of runs without gradients.

    Args:
        new_runs: The new runs.
        baseline_runs: The runs to compare them with.
        most: By how many percent a run may need more than its baseline.

    Raises:
        UsageError: If two runs of one side have the same place.
    """
    old = by_place(baseline_runs)
    new = _beside(by_place(new_runs), old)
    pairs = [(_name(key), new[key], old[key]) for key in old if key in new]
    return [
        _gradients(name, after, before, most)
        for name, after, before in pairs
        if not _why_not(after.header, before.header, allow_limit=True) and _spent(after, _ids(after))
    ]


def _gradients(name: str, new: Run, old: Run, most: float) -> Finding:
    ids = _ids(new)
    after, before = (_spent(run, ids) / len(ids) for run in (new, old))
    change = f"{100 * (after / before - 1):+.1f} %" if before else "none before"
    words = f"{name}: {after:.1f} gradient evaluations per sample, {before:.1f} in the baseline ({change})"
    if 100 * after <= before * (100 + most):
        return Finding(f"{name}, gradients", True, "ok", words)
    return Finding(f"{name}, gradients", False, "dearer", f"{words}; at most +{most:g} % is allowed")


def _ids(run: Run) -> set[str]:
    return {record.sample_id for record in run.records}


def _spent(run: Run, ids: set[str]) -> int:
    return sum(record.evaluations for record in run.records if record.sample_id in ids)


def by_place(runs: Iterable[Run]) -> dict[RunKey, Run]:
    """Runs by what pairs a run with its baseline: suite, encoder, task, dataset, attack, defence and victim.

    A victim's settings count, and so do a defence's options.

    Raises:
        UsageError: If two have the same place.
    """
    result: dict[RunKey, Run] = {}
    for run in runs:
        h = run.header
        victim = f"{h.model} {sorted(h.victim_settings.items())}"
        key = (h.suite, h.encoder, h.task, h.dataset, h.attack, h.defence or "", victim)
        if key in result:
            places = f"{result[key].directory} and {run.directory}"
            raise UsageError(f"two runs of {_name(key)}, choose one: {places}")
        result[key] = run
    return result


def added(key: RunKey) -> Finding:
    """Of a run that an update puts beside those of the baseline, in place of none."""
    return Finding(_name(key), True, "added", f"{_name(key)}, attack {key[4]}: new in the baseline")


def _beside(new: dict[RunKey, Run], old: dict[RunKey, Run]) -> dict[RunKey, Run]:
    """New runs by the place of their baseline: one of another model is held against the only one there is."""
    result: dict[RunKey, Run] = {}
    for key, run in new.items():
        alike = [other for other in old if other[:-1] == key[:-1]]
        alone = len(alike) == 1 and sum(other[:-1] == key[:-1] for other in new) == 1
        result[alike[0] if alone else key] = run
    return result


def _name(key: RunKey) -> str:
    _, encoder, task, dataset, attack, defence, _ = key
    surrogate = attack.partition("-from-")[2]
    images = f", images made on {surrogate}" if surrogate else ""
    return f"{encoder}{f' behind {defence}' if defence else ''} / {task} / {dataset}{images}"


def _compare_runs(name: str, new: Run, old: Run, allow_limit: bool, seed: int) -> list[Finding | _Comparison]:
    if reason := _why_not(new.header, old.header, allow_limit):
        outcome, words = reason
        return [Finding(name, False, outcome, f"{name}: {words}")]
    radii = sorted({0.0, *old.header.radii, *new.header.radii})
    return [_compare_at(name, radius, new, old, allow_limit, seed) for radius in radii]


def _why_not(new: RunHeader, old: RunHeader, allow_limit: bool) -> tuple[str, str] | None:
    """Outcome and words of why two runs cannot be compared; None if they can."""
    if old.partial:
        return "partial", f"the baseline is partial ({old.partial})"
    if new.partial and not (allow_limit and new.status == "complete"):
        return "partial", f"the run is partial ({new.partial})"
    fields = COMPARABLE if new.limit != old.limit else (*COMPARABLE, "dataset_fingerprint")
    if changed := differences(old, new, fields):
        words = ", ".join(f"{field} was {before!r} in the baseline and is {now!r}" for field, before, now in changed)
        same_order = f", or the runs with --radii-order {old.radii_order}" if new.radii_order != old.radii_order else ""
        return "not comparable", f"{words}; make a new baseline{same_order}"
    if doubts := sorted(set(new.doubts) - set(old.doubts)):
        return "not credible", f"sanity checks failed ({', '.join(doubts)}); see the run's header for what they found"
    return None


def _compare_at(name: str, radius: float, new: Run, old: Run, allow_limit: bool, seed: int) -> Finding | _Comparison:
    name += f" at {eps_label(radius, new.header.norm)}" if radius else ", clean"
    for side, run in (("baseline", old), ("run", new)):
        if radius and radius not in run.header.radii:
            return Finding(name, False, "missing", f"{name}: the {side} does not have this radius")
    after, before = (scores_at(run, radius) for run in (new, old))
    lost, extra = sorted(before.keys() - after.keys()), sorted(after.keys() - before.keys())
    whole = len(after) == new.header.n_samples and len(before) == old.header.n_samples
    if extra or (lost and not allow_limit) or not after or not whole:
        counts = f"{len(after)} of {new.header.n_samples} samples scored, {len(before)} of {old.header.n_samples}"
        counts += " in the baseline"
        examples = [f"{label} {ids[0]}" for label, ids in (("without", lost), ("unknown", extra)) if ids]
        return Finding(name, False, "missing", f"{name}: " + ", ".join([counts, *examples]))
    before = {sample: before[sample] for sample in after}
    lower_is_better = old.header.worst == "max"
    same_weights = old.header.weights == new.header.weights
    alternative: Alternative = "two-sided" if same_weights else "greater" if lower_is_better else "less"
    ceiling, groups = old.header.ceiling, groups_at(old)
    change = paired(after, before, groups, seed, alternative=alternative, ceiling=ceiling)
    return _Comparison(name, _mean(before), _mean(after), change, lower_is_better, same_weights)


def _conclude(comparison: _Comparison, p: float) -> Finding:
    """What a comparison says, given its corrected p-value."""
    change = comparison.change
    drop = change.difference if comparison.lower_is_better else -change.difference
    moved = p < FELL_BELOW and (drop > 0 or (drop < 0 and comparison.same_weights))
    verb = "rose" if change.difference > 0 else "fell" if change.difference < 0 else "stayed"
    words = f"{comparison.name} {verb} from {comparison.old:.1f} to {comparison.new:.1f} ({change.in_words(p)})"
    if moved and drop < 0:
        words += "; the weights are the same, so the attack is weaker or the scoring has changed"
    return Finding(comparison.name, not moved, "ok" if not moved else "fell" if drop > 0 else "rose", words)


def _mean(scores: Mapping[str, float]) -> float:
    return sum(scores.values()) / len(scores)
