"""What to run: suites (data), a user's request, and the runs it stands for. Never imports torch."""

from bench.config.choices import PRECISIONS, TOWERS
from bench.config.radii import NORMS, parse_eps
from bench.config.request import DEFAULT_ENGINE, DEFAULT_OUTPUT, DEFAULT_PROTOCOL, Request, request_of
from bench.config.run_config import TRANSFER, RunConfig, resolve, resolve_all
from bench.config.suite import Suite, TaskPlan, load_suite, preset, suite_names

__all__ = [
    "DEFAULT_ENGINE",
    "DEFAULT_OUTPUT",
    "DEFAULT_PROTOCOL",
    "NORMS",
    "PRECISIONS",
    "TOWERS",
    "TRANSFER",
    "Request",
    "RunConfig",
    "Suite",
    "TaskPlan",
    "load_suite",
    "parse_eps",
    "preset",
    "request_of",
    "resolve",
    "resolve_all",
    "suite_names",
]
