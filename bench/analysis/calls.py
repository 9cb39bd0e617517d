"""What endpoints did beside answering: refusals, filtered answers, and other answers to the same clean image."""

from collections import Counter
from collections.abc import Iterable

from bench.analysis.stats import Estimate, interval
from bench.records import CLEAN, Record, Run
from bench.records.worst import eps_label, groups_of, unscored


def declined(run: Run, radius: float) -> Counter[str]:
    """Samples without a score at a radius because the model refused or its provider filtered, by outcome.

    An endpoint that declines to answer the clean image has no score at any radius. A sample of which another call
    failed is not among them: it is to be asked again.
    """
    if run.columns.first_error is None or not any(record.declined for record in run.records):
        return Counter()
    left = set(unscored(run.header, run.records, radius))
    found: dict[str, list[Record]] = {}
    for record in run.records:
        if record.sample_id in left and record.error is not None and record.radius in (0, radius):
            found.setdefault(record.sample_id, []).append(record)
    settled = (records for records in found.values() if all(record.settled for record in records))
    return Counter(records[0].call.outcome for records in settled if records[0].call is not None)


def disagreement(records: Iterable[Record]) -> Estimate | None:
    """How often, in percent, the same clean image got another answer when asked again; None where none was."""
    asked = [record for record in records if record.step == CLEAN and record.repeats]
    shares = {}
    for record in asked:
        first = None if record.declined else record.prediction
        said = [None if one.score is None else one.prediction for one in record.repeats or ()]
        shares[record.sample_id] = 100.0 * sum(text != first for text in said) / len(said)
    return interval(shares, groups_of(asked)) if shares else None


def sentences(run: Run) -> list[str]:
    """What a reader of a run's scores must know of its calls; nothing of a local model's."""
    found = []
    counts = {radius: declined(run, radius) for radius in (0.0, *run.header.radii)}
    if any(counts.values()):
        parts = [_of_radius(run, radius, count) for radius, count in counts.items()]
        found.append(
            f"{run.header.dataset}: declined, and counted neither as robust nor as broken: {'; '.join(parts)}."
        )
    if run.columns.asked_again and (floor := disagreement(run.records)) is not None:
        times = max(len(record.repeats or ()) for record in run.records)
        again = "once more" if times == 1 else f"{times} times more"
        found.append(
            f"{run.header.dataset}: asked {again} about the same clean image, the model gave another answer in "
            f"{floor.value:.1f} % [{floor.low:.1f}, {floor.high:.1f}] of cases."
        )
    return found


def _of_radius(run: Run, radius: float, count: Counter[str]) -> str:
    words = {"refusal": "refused", "filtered": "filtered"}
    shown = ", ".join(f"{number} {words.get(outcome, outcome)}" for outcome, number in sorted(count.items())) or "none"
    return f"{eps_label(radius, run.header.norm)} {shown} of {run.header.n_samples}"
