"""What the suites say of the data behind a finished run, for tables and reports."""

from bench.analysis.facts import Facts
from bench.config.suite import load_suite, suite_names
from bench.records import RunHeader


def _optional(header: RunHeader) -> bool:
    if header.suite not in suite_names():
        return False
    plan = load_suite(header.suite).tasks.get(header.task)
    return plan is not None and header.dataset in plan.optional


def _targets(header: RunHeader) -> tuple[str, ...] | None:
    if header.suite not in suite_names():
        return None
    row = load_suite(header.suite).datasets.get(header.dataset, {})
    return tuple(target if isinstance(target, str) else target["text"] for target in row.get("targets", ()))


SUITE_FACTS = Facts(_optional, _targets)
