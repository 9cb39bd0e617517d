"""Measured numbers: every run at every radius, averages over datasets, and success rates by target text."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.analysis.stats import Estimate, average_interval, ceiling_of, interval
from bench.config import load_suite, suite_names
from bench.errors import UsageError
from bench.records import CLEAN, Run, RunHeader
from bench.records.worst import groups_of, worst_scores

AVERAGE = "average"
ALL_TARGETS = "all targets"


@dataclass(frozen=True)
class Measure:
    """One number with its interval, and where it comes from.

    Attributes:
        header: of the run, or of the first of several.
        dataset: its dataset, or "average".
        radius: radius as in `RunHeader.radius`; 0 for clean.
        estimate: on the metric's scale, with interval and n.
        whole: all samples of whole runs are scored; otherwise the number is not to be quoted.
        directories: of the runs behind it.
        target: what the model was to say, of a targeted attack; "" for all of them together.
    """

    header: RunHeader
    dataset: str
    radius: float
    estimate: Estimate
    whole: bool
    directories: tuple[Path, ...]
    target: str = ""

    @property
    def surrogate(self) -> str | None:
        """The encoder that the images were made on, where it is another."""
        return self.header.surrogate


def radii(header: RunHeader) -> list[float]:
    """A run's radii, clean (0) first."""
    return [0.0, *sorted(eps for eps in set(header.radii) if eps > 0)]


def measured(runs: Iterable[Run]) -> list[Measure]:
    """One number a run and radius; a radius at which nothing was scored has none: that is not 0."""
    found = []
    for run in runs:
        groups = groups_of(run.records)
        for eps in radii(run.header):
            if scores := worst_scores(run.header, run.records, eps):
                estimate = interval(scores, groups, ceiling=ceiling_of(run.header.metric))
                found.append(_measure([run], run.header.dataset, eps, estimate))
    return found


def averaged(runs: Iterable[Run], task: str = "zeroshot") -> list[Measure]:
    """The plain mean over a task's datasets, of each encoder that was measured on all of them.

    Datasets that the suite runs only when they are named, such as ImageNet beside the paper's 13, are no part of it.

    Raises:
        ValueError: two runs of an encoder on one dataset.
    """
    families: dict[tuple[object, ...], dict[str, dict[str, Run]]] = {}
    for run in runs:
        h = run.header
        if h.task == task and not _optional(h):
            encoders = families.setdefault((h.suite, h.attack, h.metric, h.model), {})
            if h.dataset in encoders.setdefault(h.encoder, {}):
                raise ValueError(f"two runs of {h.encoder} on {h.dataset}: which one to average?")
            encoders[h.encoder][h.dataset] = run
    found = []
    for encoders in families.values():
        datasets = {dataset for of_encoder in encoders.values() for dataset in of_encoder}
        for of_encoder in encoders.values():
            if len(datasets) > 1 and of_encoder.keys() == datasets:
                found += _average([of_encoder[dataset] for dataset in sorted(datasets)])
    return found


def _optional(header: RunHeader) -> bool:
    if header.suite not in suite_names():
        return False
    plan = load_suite(header.suite).tasks.get(header.task)
    return plan is not None and header.dataset in plan.optional


def by_target(runs: Iterable[Run]) -> list[Measure]:
    """Success rates of targeted attacks, target by target and all together.

    Raises:
        UsageError: the records contradict the suite about who was to say what.
    """
    found = []
    for run in runs:
        targets, groups = targets_of(run), groups_of(run.records)
        for eps in radii(run.header):
            scores = worst_scores(run.header, run.records, eps)
            for target in dict.fromkeys(targets.values()):
                if chosen := {s: v for s, v in scores.items() if targets[s] == target}:
                    size = sum(name == target for name in targets.values())
                    estimate = interval(chosen, groups, ceiling=ceiling_of(run.header.metric))
                    found.append(_measure([run], run.header.dataset, eps, estimate, target, size))
            if scores:
                estimate = interval(scores, groups, ceiling=ceiling_of(run.header.metric))
                found.append(_measure([run], run.header.dataset, eps, estimate, ALL_TARGETS))
    return found


def targets_of(run: Run) -> dict[str, str]:
    """Sample id -> the text that the attacker wants said.

    A suite deals its targets out in turn, in the order of the dataset, which is that of the clean records. Where the
    suite names no targets, all samples have the dataset's name as theirs.

    Raises:
        UsageError: the suite is not known, or a recorded success says another target than its own.
    """
    h = run.header
    if h.suite not in suite_names():
        raise UsageError(f"{run.directory} is of suite {h.suite!r}, which is not known here, so its targets are not")
    row = load_suite(h.suite).datasets.get(h.dataset, {})
    texts = [target if isinstance(target, str) else target["text"] for target in row.get("targets", ())]
    order = list(dict.fromkeys(record.sample_id for record in run.records if record.step == CLEAN))
    if not texts:
        return {record.sample_id: h.dataset for record in run.records}
    targets = {sample: texts[i % len(texts)] for i, sample in enumerate(order)}
    _check_targets(run, targets)
    return targets


def _check_targets(run: Run, targets: Mapping[str, str]) -> None:
    """Every success must say its own target, and every failure must not."""
    from tasks.metrics.contains import contains_target

    for record in run.records:
        target = targets.get(record.sample_id)
        if record.error is not None or target is None:
            continue
        if contains_target(record.prediction, target) != (record.score == 100):
            raise UsageError(
                f"{run.directory}: sample {record.sample_id!r} has score {record.score:g} for saying "
                f"{record.prediction!r}, but suite {run.header.suite!r} gives it the target {target!r}; was the suite "
                "changed? run the attack again"
            )


def _average(runs: list[Run]) -> list[Measure]:
    """The average of one encoder's runs, at the radii that all have."""
    found = []
    for eps in radii(runs[0].header):
        if all(eps in radii(run.header) for run in runs):
            strata = [(worst_scores(r.header, r.records, eps), groups_of(r.records)) for r in runs]
            if all(scores for scores, _ in strata):
                estimate = average_interval(strata, ceiling=ceiling_of(runs[0].header.metric))
                found.append(_measure(runs, AVERAGE, eps, estimate))
    return found


def _measure(
    runs: Sequence[Run], dataset: str, eps: float, estimate: Estimate, target: str = "", size: int | None = None
) -> Measure:
    wanted = sum(run.header.n_samples for run in runs) if size is None else size
    whole = estimate.n == wanted and not any(run.header.partial for run in runs)
    return Measure(runs[0].header, dataset, eps, estimate, whole, tuple(run.directory for run in runs), target)
