"""Where runs are carried out: engines, by name behind one door.

A third party adds one by an entry point of the group "bench.engines" that names a class like `base.Engine`.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench import registry
from bench.config import RunConfig
from bench.errors import UsageError

GROUP, DEFAULT = "bench.engines", "processes"


def execute_all(
    configs: Sequence[RunConfig], *, jobs: int | None = None, progress: bool = True, engine: str = DEFAULT
) -> list[Path]:
    """Carry out runs on an engine and return their directories in order.

    Args:
        configs: what to run.
        jobs: runs carried out at once; None leaves it to the engine.
        progress: whether to show how far they are.
        engine: its name.

    Raises:
        UsageError: an unknown engine, or one that is none; and as of `bench.running.loop.execute`.
    """
    if engine not in registry.names(GROUP):
        raise registry.unknown("engine", engine, registry.names(GROUP))
    carried_out: Any = registry.made(GROUP, engine, object, jobs=jobs, progress=progress)
    if not all(callable(getattr(carried_out, name, None)) for name in ("submit", "watch")):
        raise UsageError(f"the plugin engine {engine!r} is no class with submit and watch; see bench.running.engines")
    from bench.running.plugins import blaming_plugins  # imports torch, which listing the engines does not need

    with blaming_plugins():
        carried_out.submit(configs)
        finished = carried_out.watch()
        if not isinstance(finished, Iterable):
            raise registry.broken(GROUP, engine, f"watch gives a {type(finished).__name__}, not the runs' folders")
        return list(finished)
