"""What answers can be counted for beside their score: yes and no, and parts of the samples by category."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from bench.analysis.cells import Measure, measure, radii, undefined
from bench.analysis.stats import Estimate, interval, ratio_interval
from bench.records import Run
from bench.records.samples import read_samples
from bench.records.worst import groups_at, scores_at, worst_records
from tasks.metrics.yes_no import RULES, YES

ALL = "all"


def yes_no(runs: Iterable[Run]) -> list[Measure]:
    """Accuracy, precision, recall, F1 and the share of "yes", of each run at each radius; "yes" is the positive class.

    What counts is the answer that each sample is left with, read by the protocol's rule. Intervals resample images. A
    share of nothing, such as precision where no answer is "yes", has no number.
    """
    found = []
    for run in (run for run in runs if undefined(run) is None):
        wanted = {key: asked.references[0] for key, asked in read_samples(run.directory).items() if asked.references}
        groups, rule = groups_at(run), RULES[run.header.yes_no_rule]
        for radius in radii(run.header):
            worst = worst_records(run.header, run.records, radius)
            said = {sample: rule(record.prediction) for sample, record in worst.items() if sample in wanted}
            counts = _counts(said, wanted, groups) if said else {}
            found += [
                replace(measure([run], run.header.dataset, radius, one), part=part, ranked=part != "yes-rate")
                for part, one in counts.items()
                if one is not None
            ]
    return found


def _counts(
    said: Mapping[str, str | None], wanted: Mapping[str, str], groups: Mapping[str, str]
) -> dict[str, Estimate | None]:
    """The numbers by name."""
    hit = {sample: float(answer == wanted[sample] == YES) for sample, answer in said.items()}
    positive = {sample: float(answer == YES) for sample, answer in said.items()}
    relevant = {sample: float(wanted[sample] == YES) for sample in said}
    right = {sample: 100.0 * (answer == wanted[sample]) for sample, answer in said.items()}
    return {
        "accuracy": interval(right, groups),
        "precision": ratio_interval({s: (hit[s], positive[s]) for s in said}, groups),
        "recall": ratio_interval({s: (hit[s], relevant[s]) for s in said}, groups),
        "F1": ratio_interval({s: (2 * hit[s], positive[s] + relevant[s]) for s in said}, groups),
        "yes-rate": interval({sample: 100.0 * value for sample, value in positive.items()}, groups),
    }


def by_category(runs: Iterable[Run]) -> list[Measure]:
    """The metric over all samples and over each category of some of them, of each run at each radius."""
    found = []
    for run in (run for run in runs if undefined(run) is None):
        categories: dict[str, set[str]] = {}
        samples = read_samples(run.directory)
        for key, asked in samples.items():
            for category in asked.categories:
                categories.setdefault(category, set()).add(key)
        parts = {name: members for name, members in categories.items() if len(members) < len(samples)}
        groups, ceiling = groups_at(run), run.header.ceiling
        for radius in radii(run.header):
            scores = scores_at(run, radius)
            for part, members in {ALL: set(scores), **parts}.items():
                if chosen := {sample: score for sample, score in scores.items() if sample in members}:
                    size = run.header.n_samples if part == ALL else len(members)
                    estimate = interval(chosen, groups, ceiling=ceiling)
                    made = measure([run], run.header.dataset, radius, estimate, size=size)
                    found.append(replace(made, part=part))
    return found
