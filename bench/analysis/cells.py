"""Measured numbers: every run at every radius, averages over datasets, and success rates by target text."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from bench.analysis.calls import declined
from bench.analysis.facts import Facts
from bench.analysis.stats import Estimate, average_interval, interval
from bench.errors import UsageError
from bench.records import CLEAN, Run, RunHeader
from bench.records.samples import read_samples
from bench.records.worst import groups_at, last_records, scores_at
from tasks.metrics import Cider, contains_target

AVERAGE = "average"
MEAN = "mean"  # part of a score beside shares of samples
ALL_TARGETS = "all targets"
COUNTED = ("precision", "recall", "F1", "yes-rate")  # parts that are another metric than the header's
TO_CAPTIONS = "CIDEr to the captions"


@dataclass(frozen=True)
class Measure:
    """One number with its interval, and where it comes from.

    Attributes:
        headers: of the runs behind it.
        directories: of the same.
        dataset: their dataset, or "average".
        radius: radius as in `RunHeader.radii`; 0 for clean.
        estimate: on the metric's scale, with interval and n.
        whole: all samples of whole runs are scored; otherwise the number is not to be quoted.
        target: what the model was to say, of a targeted attack; "" for all of them together.
        counted: which attacks count, where not all do: see `bench.analysis.defences`.
        part: which count of the answers it is, such as "recall", or of which part of the samples, such as "NAT"; "" for
            the metric on all of them.
        ranked: whether a better number is better for the model: not so of a share of answers "yes".
        other_metric: what the number is, where it is not in the metric of its runs; more of it is better.
    """

    headers: tuple[RunHeader, ...]
    directories: tuple[Path, ...]
    dataset: str
    radius: float
    estimate: Estimate
    whole: bool
    target: str = ""
    counted: str = ""
    part: str = ""
    ranked: bool = True
    other_metric: str = ""

    @property
    def lower_is_better(self) -> bool:
        """Whether a smaller number is better for the model."""
        return self.header.worst == "max" and not self.other_metric

    @property
    def header(self) -> RunHeader:
        """The header of the run, or of the first of several."""
        return self.headers[0]

    @property
    def surrogate(self) -> str | None:
        """The encoder that the images were made on, where it is another, or the same in another model."""
        return self.header.surrogate

    @property
    def metric(self) -> str:
        """What is measured, with its unit."""
        return self.other_metric or (f"{self.part} (%)" if self.part in COUNTED else self.header.metric)

    @property
    def doubts(self) -> tuple[str, ...]:
        """Names of the sanity checks that failed in any of its runs."""
        return tuple(dict.fromkeys(name for header in self.headers for name in header.doubts))


def conditions(header: RunHeader) -> tuple[str | None, ...]:
    """What two runs must share for their numbers to mean the same: protocol, norm, precision, victim, source, ..."""
    asked = repr(sorted(header.victim_settings.items()))
    made = repr((header.surrogate_model, sorted(header.surrogate_settings.items()), header.ensemble))
    seen = (header.tower, asked, header.defence, header.judge)
    return (header.protocol_name, header.norm, header.radii_order, header.precision, *seen, header.surrogate, made)


def radii(header: RunHeader) -> list[float]:
    """A run's radii, clean (0) first."""
    return [0.0, *sorted(radius for radius in set(header.radii) if radius > 0)]


def undefined(run: Run) -> str | None:
    """Why a run has no number: nothing was scored, or its scores mean nothing. None where it has some."""
    columns = run.columns
    if not columns.scored.any():
        error = columns.first_error
        return f"{run.directory}: no sample has a score" + (" yet" if error is None else f"; the first error: {error}")
    if run.header.is_cider and run.header.n_samples == 1 and len(set(columns.groups)) == 1:
        return (
            f"{run.directory}: CIDEr weighs words by how many images have them, so that one image has no score; take "
            "at least two"
        )
    return None


def measured(runs: Iterable[Run]) -> list[Measure]:
    """One number per run and radius; a radius at which nothing was scored has none: that is not 0.

    Nor has a run whose scores mean nothing: see `undefined`.
    """
    found = []
    for run in (run for run in runs if undefined(run) is None):
        groups = groups_at(run)
        for radius in radii(run.header):
            if scores := scores_at(run, radius):
                estimate = interval(scores, groups, ceiling=run.header.ceiling)
                answered = run.header.n_samples - declined(run, radius).total()
                found.append(measure([run], run.header.dataset, radius, estimate, size=answered))
    return found


def averaged(runs: Iterable[Run], facts: Facts) -> list[Measure]:
    """The plain mean over the datasets of a task that names classes, of each encoder that was measured on all of them.

    Datasets that the suite runs only when they are named, such as ImageNet beside the paper's 13, are no part of it.
    Of several runs of an encoder on one dataset, a whole one stands for the partial ones; where two are whole, there is
    no telling which to average, and so there is no average.
    """
    families: dict[tuple[object, ...], dict[str, dict[str, list[Run]]]] = {}
    for run in runs:
        h = run.header
        if h.answer_kind == "class" and not facts.optional(h) and undefined(run) is None:
            encoders = families.setdefault((h.suite, h.task, h.attack, h.metric, h.model, *conditions(h)), {})
            encoders.setdefault(h.encoder, {}).setdefault(h.dataset, []).append(run)
    found = []
    for encoders in families.values():
        datasets = {dataset for of_encoder in encoders.values() for dataset in of_encoder}
        for of_encoder in encoders.values():
            chosen = {dataset: one for dataset, several in of_encoder.items() if (one := _the_one(several))}
            if len(datasets) > 1 and chosen.keys() == datasets:
                found += _average([chosen[dataset] for dataset in sorted(datasets)])
    return found


def _the_one(runs: Sequence[Run]) -> Run | None:
    """The only run, or the only whole one."""
    whole = [run for run in runs if not run.header.partial]
    chosen = whole or runs
    return chosen[0] if len(chosen) == 1 else None


def by_target(runs: Iterable[Run], facts: Facts) -> list[Measure]:
    """Success rates of targeted attacks, target by target and all together.

    Raises:
        UsageError: the records contradict the suite about who was to say what.
    """
    found = []
    for run in runs:
        targets, groups = targets_of(run, facts), groups_at(run)
        ceiling = run.header.ceiling
        for radius in radii(run.header):
            scores = scores_at(run, radius)
            for target in dict.fromkeys(targets.values()):
                if chosen := {s: v for s, v in scores.items() if targets.get(s) == target}:
                    size = sum(name == target for name in targets.values())
                    estimate = interval(chosen, groups, ceiling=ceiling)
                    found.append(measure([run], run.header.dataset, radius, estimate, target, size))
            if scores:
                estimate = interval(scores, groups, ceiling=ceiling)
                found.append(measure([run], run.header.dataset, radius, estimate, ALL_TARGETS))
    return found


def to_captions(runs: Iterable[Run]) -> list[Measure]:
    """CIDEr of what models say under a targeted attack, reached or not, against what people say of the images.

    It tells whether an image that fails to make a model say the target makes it say something false all the same. Of
    each sample the last attack counts. Runs that did not write people's captions down have no such number.
    """
    found = []
    scorers: dict[tuple[tuple[str, tuple[str, ...]], ...], Callable[[str, str], float]] = {}  # by the captions
    for run in runs:
        groups = groups_at(run)
        captions = {groups.get(asked.id, asked.id): asked.captions for asked in read_samples(run.directory).values()}
        if len(captions) < 2 or not all(captions.values()):
            continue
        images = tuple(captions.items())
        score = scorers.get(images) or cache(Cider(captions).score)  # much is said at several radii, and by several
        scorers[images] = score
        for radius in radii(run.header):
            said = last_records(run.header, run.records, radius)
            scores = {s: score(groups[s], said[s].prediction) for s in scores_at(run, radius)}
            if scores:
                one = measure([run], run.header.dataset, radius, interval(scores, groups), TO_CAPTIONS)
                found.append(replace(one, other_metric="CIDEr"))
    return found


def shares(runs: Iterable[Run], thresholds: Mapping[str, Sequence[float]]) -> list[Measure]:
    """The mean score of each run, and the share of samples with at least so high a score.

    Args:
        runs: of tasks with a judge.
        thresholds: on the metric's scale, by task.
    """
    found = []
    for run in runs:
        groups = groups_at(run)
        for one in measured([run]):
            found.append(replace(one, part=MEAN))
            scores = scores_at(run, one.radius)
            for threshold in thresholds.get(run.header.task, ()):
                reached = {sample: 100.0 * (score >= threshold) for sample, score in scores.items()}
                estimate = interval(reached, groups, ceiling=100.0)
                share = measure([run], run.header.dataset, one.radius, estimate)
                found.append(replace(share, part=f"from {threshold:g} on (%)"))
    return found


def targets_of(run: Run, facts: Facts) -> dict[str, str]:
    """Sample id -> the text that the attacker wants said; empty where nothing says so.

    As the run wrote down what it asked. Of runs from before that was kept the suite knows: it deals its targets out in
    turn, in the order of the dataset, which is that of the clean records; where it names none, all samples have the
    dataset's name as theirs.

    Raises:
        UsageError: a recorded success says another target than its own.
        RecordsError: what the run wrote down is damaged.
    """
    targets = {asked.id: asked.references[0] for asked in read_samples(run.directory).values() if asked.references}
    if not targets:
        texts = facts.targets(run.header)
        if texts is None:
            return {}
        if not texts:
            return {record.sample_id: run.header.dataset for record in run.records}
        order = dict.fromkeys(record.sample_id for record in run.records if record.step == CLEAN)
        targets = {sample: texts[i % len(texts)] for i, sample in enumerate(order)}
    _check_targets(run, targets)
    return targets


def _check_targets(run: Run, targets: Mapping[str, str]) -> None:
    """Every success must say its own target, and every failure must not."""
    for record in run.records:
        target = targets.get(record.sample_id)
        if record.error is not None or target is None:
            continue
        if contains_target(record.prediction, target) != (record.score == 100):
            raise UsageError(
                f"{run.directory}: sample {record.sample_id!r} has score {record.score:g} for saying "
                f"{record.prediction!r}, but its target in suite {run.header.suite!r} is {target!r}; was the suite "
                "changed? run the attack again"
            )


def _average(runs: list[Run]) -> list[Measure]:
    """The average of one encoder's runs, at the radii that all have."""
    found = []
    for radius in radii(runs[0].header):
        if all(radius in radii(run.header) for run in runs):
            strata = [(scores_at(r, radius), groups_at(r)) for r in runs]
            if all(scores for scores, _ in strata):
                estimate = average_interval(strata, ceiling=runs[0].header.ceiling)
                found.append(measure(runs, AVERAGE, radius, estimate))
    return found


def measure(
    runs: Sequence[Run], dataset: str, radius: float, estimate: Estimate, target: str = "", size: int | None = None
) -> Measure:
    """A number of runs, of which ``size`` samples were to be scored, by default all."""
    wanted = sum(run.header.n_samples for run in runs) if size is None else size
    whole = estimate.n == wanted and not any(run.header.partial for run in runs)
    headers, directories = tuple(run.header for run in runs), tuple(run.directory for run in runs)
    return Measure(headers, directories, dataset, radius, estimate, whole, target)
