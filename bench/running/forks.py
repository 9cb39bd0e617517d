"""Worker processes on a CPU, forked from one that has imported what runs need: a start takes milliseconds.

That process is begun before this one imports the same libraries, so that the two import side by side. It finds them in
the same folders, and imports nothing of this package. It touches no accelerator, whose state does not survive a fork:
runs on one begin in fresh processes. So do those of other systems than Linux, whose own libraries may not survive it.
"""

import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.context import BaseContext

from bench.config import DEFAULT_ENGINE, RunConfig

PRELOADED = [
    "open_clip",
    "transformers.models.clip.image_processing_clip",
    "transformers.models.llama.modeling_llama",
    "transformers.models.llava.modeling_llava",
]
CAN_FORK = sys.platform == "linux"
WORTH = 32  # samples, for which a process of their own pays


def begin_early(configs: Sequence[RunConfig], jobs: int | None, on: str) -> None:
    """Begin the process that workers are forked from, if these runs will probably have some."""
    parts = sum(config.shards or 1 for config in configs)
    if len(configs) == 1 and configs[0].shards is None:
        parts = configs[0].n_samples // WORTH  # see `bench.running.engines.splitting`
    if on == DEFAULT_ENGINE and parts > 1 and jobs != 1 and configs[0].device in ("auto", "cpu"):
        begin()


def begin() -> None:
    """Begin the process that workers are forked from, where there is none yet."""
    if CAN_FORK:
        forkserver.set_forkserver_preload(PRELOADED)
        with _same_places():
            forkserver.ensure_running()


def context(on_accelerators: bool) -> BaseContext:
    """How the processes of workers begin."""
    if on_accelerators or not CAN_FORK:
        return multiprocessing.get_context("spawn")
    begin()
    return multiprocessing.get_context("forkserver")


@contextmanager
def _same_places() -> Iterator[None]:
    """Within it, a process that begins looks for modules where this one does: not first where the user stands."""
    places = os.pathsep.join(place or os.getcwd() for place in sys.path)
    chosen = {"PYTHONPATH": places, "PYTHONSAFEPATH": "1"}
    before = {name: os.environ.get(name) for name in chosen}
    os.environ.update(chosen)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
