"""The library behind the command line: `run` carries out what `bench run` asks for."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import sinks
from bench.analysis.cells import measured
from bench.analysis.sent import send
from bench.config import Request, RunConfig, resolve, resolve_all
from bench.config.choices import check_asked
from bench.config.facts import SUITE_FACTS
from bench.config.request import about
from bench.errors import UsageError
from bench.records import Record, RecordsError, Run, load_run
from bench.running.forks import begin_early
from bench.tables import layouts
from bench.tables.plot import score_against_radius
from bench.tables.rows import frame, rows

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Names = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class Result:
    """Finished runs, as they lie on disk."""

    runs: tuple[Run, ...]

    def rows(self) -> list[dict[str, Any]]:
        """One JSON-able dict per run and radius, with value, 95 % interval and n; see `bench.tables.rows.rows`."""
        return rows(measured(self.runs))

    def table(self) -> "pd.DataFrame":
        """A row per run and radius, and per average over zero-shot datasets; names and numbers in columns.

        The columns are encoder, task, dataset, attack, radius (0 for clean), value, low and high (95 % interval), n,
        partial (bool) and checks (the sanity checks that failed, comma-separated).
        """
        return frame(layouts.flat.measures(self.runs, SUITE_FACTS))

    def plot(self) -> "Figure":
        """Score against radius, a panel per task and dataset and a line per encoder, as a matplotlib figure."""
        return score_against_radius(layouts.build("flat", self.runs, SUITE_FACTS))

    @property
    def records(self) -> list[Record]:
        """Every record of every run."""
        return [record for run in self.runs for record in run.records]


def run(encoder: Names | None = None, task: Names | None = None, *, progress: bool = True, **options: Any) -> Result:
    """Evaluate encoders on tasks, clean and under attack, resuming what is recorded already.

    Several names, radii or places may come as a list or as comma-separated text.

    Args:
        encoder: {encoder}
        task: {task}
        progress: Show progress bars on stderr.
        options: {options}

    Raises:
        UsageError: an unknown name, a bad radius, a file that is missing or is not what it should be.
        RecordsError: a run directory is in use, holds another run, or cannot be written.
    """
    request = Request.of(encoder=encoder, task=task, **options)
    configs = resolve(request)
    check_asked(request, configs)
    return _carried_out(configs, request, progress)


def run_all(*, progress: bool = True, **options: Any) -> Result:
    """Carry out every run behind a suite's tables, resuming what is recorded already.

    Args:
        progress: Show progress bars on stderr.
        options: those of `run`, except those that choose runs: encoder, task, dataset, surrogate, attack, eps.

    Raises:
        UsageError: as of `run`; or the suite does not say which runs its tables hold.
        RecordsError: as of `run`.
    """
    request = Request.of(**options)
    configs = resolve_all(request)
    check_asked(request, configs)
    return _carried_out(configs, request, progress)


def _carried_out(configs: list[RunConfig], request: Request, progress: bool) -> Result:
    sinks.check(request.log_to)
    begin_early(configs, request.jobs, request.on)
    from bench.running.engines import execute_all  # imports torch, as the workers' process does meanwhile

    try:
        directories = execute_all(configs, jobs=request.jobs, progress=progress, on=request.on)
    except (UsageError, RecordsError):  # some failed; the others are done
        send(_ended(configs), request.log_to)
        raise
    runs = tuple(load_run(directory) for directory in directories)
    send(runs, request.log_to)
    return Result(runs)


def _ended(configs: list[RunConfig]) -> list[Run]:
    """Those runs that came to an end."""
    found = []
    for config in configs:
        with suppress(RecordsError):
            found.append(load_run(config.directory))
    return [run for run in found if run.header.ended is not None]


def _describe_options() -> None:
    """Give `run` the keywords of a `Request` for its signature, and its help their words."""
    texts, shown = about(), signature(run)
    rest = [name for name in texts if name not in shown.parameters]
    keywords = [Parameter(name, Parameter.KEYWORD_ONLY, default=getattr(Request, name)) for name in rest]
    fixed = [one for one in shown.parameters.values() if one.kind is not Parameter.VAR_KEYWORD]
    run.__signature__ = shown.replace(parameters=[*fixed, *keywords])  # type: ignore[attr-defined]
    words = "\n        ".join(["as follows.", *(f"{name}: {texts[name]}" for name in rest)])
    run.__doc__ = (run.__doc__ or "").format(encoder=texts["encoder"], task=texts["task"], options=words)


_describe_options()
