"""How strong the attacks were: the audits of runs as a table."""

from collections.abc import Sequence

from bench.analysis.audits import Audited
from bench.records.worst import eps_label
from bench.tables.render import markdown_table
from bench.trust.text import for_markdown

HEAD = (
    *("task", "model", "encoder", "dataset", "radius", "robust score", "could still win", "which"),
    *("tried", "at most still to take", "seconds", "gradients"),
)


def table(audited: Sequence[Audited]) -> str:
    """A Markdown table, a row per run."""
    rows = sorted((_row(one) for one in audited), key=lambda row: row[:5])
    return markdown_table([HEAD, *rows])


def _row(one: Audited) -> list[str]:
    header, audit = one.run.header, one.audit
    model = (header.model or "none").rpartition("/")[2]
    names = (header.task, model, header.encoder, header.dataset)
    return [
        *map(for_markdown, names),
        eps_label(audit.radius, header.norm),
        f"{audit.score:.1f}",
        f"{len(audit.wins)} of {sum(finding.tried > 0 for finding in audit.findings)}",
        for_markdown(", ".join(audit.wins)) or "none",
        f"{audit.tried} of {audit.robust}",
        _most(audit.most, header.ceiling),
        f"{audit.seconds:.0f}",
        str(audit.evaluations),
    ]


def _most(most: float | None, ceiling: float | None) -> str:
    """Points of the score; of a metric without a top, a share of the samples."""
    if most is None:
        return "-"
    return f"{most:.1f}" if ceiling else f"{most:.1f} % of samples"
