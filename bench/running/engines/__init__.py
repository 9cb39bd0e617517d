"""Where runs are carried out: engines, by name behind one door.

A third party adds one by an entry point of the group "bench.engines" that names a class like `base.Engine`.
"""

import inspect
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl

from bench import registry
from bench.config import DEFAULT_ENGINE, RunConfig
from bench.errors import FailedRunsError, UsageError
from bench.records import RecordsError
from bench.running import shards
from bench.running.engines.base import Engine
from bench.running.engines.sweep import Noted
from bench.trust.text import on_one_line

GROUP = "bench.engines"


def execute_all(
    configs: Sequence[RunConfig], *, jobs: int | None = None, progress: bool = True, on: str = DEFAULT_ENGINE
) -> list[Path]:
    """Carry out runs on an engine and return their directories in order.

    Args:
        configs: what to run.
        jobs: runs carried out at once; None leaves it to the engine.
        progress: whether to show how far they are.
        on: the engine: NAME, NAME:ADDRESS, and "?" with options such as "slurm?partition=gpu&time=120".

    Raises:
        UsageError: an unknown engine or option, an engine that is none, or what is wrong with runs that failed: all
            others are carried out first.
        RecordsError: as of `bench.running.loop.execute`.
    """
    from bench.running.plugins import blaming_plugins  # imports torch, which listing the engines does not need

    engine = make_engine(on, jobs, progress)
    if len(configs) == 1 and on == DEFAULT_ENGINE:
        from bench.running.engines.splitting import split_over_cores  # imports torch, too

        configs = [split_over_cores(configs[0], jobs)]
    parts = [shards.split(config) for config in configs]
    noted = Noted(parts, on)
    with blaming_plugins():
        engine.submit([part for several in parts for part in several])
        watched = engine.watch()
        if not isinstance(watched, Iterable):
            raise registry.broken(GROUP, on, f"watch gives a {type(watched).__name__}, not what became of the runs")
        ended = iter(list(watched))
    found = [_joined(several, [next(ended) for _ in several]) for several in parts]
    noted.end(found)
    return _directories(configs, found)


def make_engine(on: str, jobs: int | None, progress: bool) -> Engine:
    """The engine that `on` names, with its options.

    Raises:
        UsageError: an unknown one or an unknown option, or one that is no engine.
    """
    place, _, query = on.partition("?")
    name, _, address = place.partition(":")
    if name not in registry.names(GROUP):
        raise registry.unknown("engine", name, registry.names(GROUP))
    found: Any = registry.resolve(GROUP, name)
    if not callable(found) or not all(callable(getattr(found, method, None)) for method in ("submit", "watch")):
        raise UsageError(f"the plugin engine {name!r} is no class with submit and watch; see bench.running.engines")
    options = dict(parse_qsl(query, keep_blank_values=True)) | ({"address": address} if address else {})
    known = [option for option in inspect.signature(found).parameters if option not in ("jobs", "progress")]
    for option in options:
        if option not in known:
            raise registry.unknown(f"option of --on {name}", option, known or ["none"])
    return cast(Engine, registry.made(GROUP, name, object, jobs=jobs, progress=progress, **options))


def _joined(parts: Sequence[RunConfig], ended: Sequence[Path | Exception]) -> Path | Exception:
    """What became of a run, given what became of its parts."""
    for outcome in ended:
        if isinstance(outcome, Exception):
            return outcome
    if parts[0].shard is None:
        return next(outcome for outcome in ended if isinstance(outcome, Path))
    try:
        return shards.join(parts)
    except (UsageError, RecordsError) as error:
        return error


def _directories(configs: Sequence[RunConfig], found: Sequence[Path | Exception]) -> list[Path]:
    """The directories of runs, none of which failed.

    Raises:
        UsageError: some did; or the error of the only one, or of all if it is the same.
    """
    errors = {c.directory: ended for c, ended in zip(configs, found, strict=True) if isinstance(ended, Exception)}
    for error in errors.values():
        if not isinstance(error, UsageError | RecordsError):
            raise error
    if len({str(error) for error in errors.values()}) > 1 or 0 < len(errors) < len(configs):
        lines = [f"  {directory}: {on_one_line(str(error))}" for directory, error in errors.items()]
        said = (
            f"{len(errors)} of {len(configs)} runs failed; the others are done, and the same command tries these again"
        )
        raise FailedRunsError(f"{said}:", lines)
    for error in errors.values():
        raise error
    return [ended for ended in found if isinstance(ended, Path)]
