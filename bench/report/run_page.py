"""What the pages of one run show: every sample with what was asked and said, and where the numbers come from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.analysis.cells import measured, radii
from bench.records import CLEAN, Record, Run
from bench.records.samples import Asked
from bench.records.worst import eps_label, is_worse, worst_attacks
from bench.report.gallery import BROKEN, ERROR, NOT_ATTACKED, ROBUST, Card


@dataclass(frozen=True)
class Line:
    """One sample on a run's page.

    Attributes:
        asked: question and references; None for runs from before they were kept.
        clean: its clean record.
        attacked: the worst attack at each radius; None where nothing was needed.
    """

    sample_id: str
    asked: Asked | None
    clean: Record | None
    attacked: tuple[Record | None, ...]
    outcome: str
    card: Card | None

    @property
    def words(self) -> str:
        """What was asked and said, without repetitions, for a search."""
        asked = [self.asked.prompt, *self.asked.references] if self.asked else []
        said = [record.error or record.prediction for record in (self.clean, *self.attacked) if record]
        return " · ".join(dict.fromkeys([*asked, *said]))


def run_context(run: Run) -> dict[str, object]:
    """What the template of a run's pages needs, beside the samples."""
    return {
        "run": run,
        "radii": radii(run.header),
        "found": {m.radius: m for m in measured([run])},
        "facts": _facts(run),
    }


def lines_of(run: Run, asked: Mapping[str, Asked], pictures: Mapping[str, Card]) -> Iterator[Line]:
    """The samples of a run in the order of their records."""
    clean = {record.sample_id: record for record in run.records if record.step == CLEAN}
    worst = worst_attacks(run.header, run.records)
    for sample in run.columns.samples:
        attacked = tuple(worst.get((sample, radius)) for radius in radii(run.header)[1:])
        outcome = _outcome(run, clean.get(sample), attacked)
        yield Line(sample, asked.get(sample), clean.get(sample), attacked, outcome, pictures.get(sample))


def _outcome(run: Run, clean: Record | None, attacked: Sequence[Record | None]) -> str:
    tried = [record for record in attacked if record is not None]
    if clean is None or clean.score is None or any(record.error for record in tried):
        return ERROR
    if any(r.score is not None and is_worse(run.header.worst, r.score, clean.score) for r in tried):
        return BROKEN
    return ROBUST if tried else NOT_ATTACKED


def _facts(run: Run) -> list[tuple[str, str]]:
    """Provenance in words."""
    h = run.header
    steps = "; ".join(", ".join(f"{key} {value}" for key, value in step.items()) for step in h.attack_steps)
    threat = f"{h.norm}, " + (", ".join(eps_label(radius, h.norm) for radius in h.radii) or "no attack")
    return [
        ("directory", str(run.directory)),
        ("suite", h.suite),
        ("encoder", h.encoder),
        ("model", h.model or "none"),
        ("task", f"{h.task}, version {h.task_version}"),
        ("dataset", h.dataset),
        ("metric", h.metric),
        ("threat model", threat),
        ("attack", h.attack),
        ("steps", steps),
        ("samples", str(h.n_samples)),
        ("seed", str(h.seed)),
        ("protocol", ", ".join(f"{key} {value}" for key, value in h.protocol.items())),
        ("status", h.partial or h.status),
        ("began", h.started),
        ("ended", h.ended or "not yet"),
        ("code", (h.commit or "unknown") + (" with uncommitted changes" if h.dirty else "")),
        ("device", h.device),
        ("packages", ", ".join(f"{name} {number}" for name, number in h.packages.items())),
        ("data fingerprint", h.dataset_fingerprint),
        *((f"weights, {name}", digest) for name, digest in h.weights.items()),
    ]
