"""What to run: suites (data), run configurations (validated), and the parsing of radii. Never imports torch."""

from bench.config.run_config import (
    DEFAULT_OUTPUT,
    DEFAULT_PROTOCOL,
    NORMS,
    PRECISIONS,
    TOWERS,
    TRANSFER,
    RunConfig,
    Suite,
    TaskPlan,
    load_suite,
    parse_eps,
    preset,
    resolve,
    resolve_all,
    suite_names,
)

__all__ = [
    "DEFAULT_OUTPUT",
    "DEFAULT_PROTOCOL",
    "NORMS",
    "PRECISIONS",
    "TOWERS",
    "TRANSFER",
    "RunConfig",
    "Suite",
    "TaskPlan",
    "load_suite",
    "parse_eps",
    "preset",
    "resolve",
    "resolve_all",
    "suite_names",
]
