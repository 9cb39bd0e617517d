"""Carrying out several runs at once: independent processes, one thread each, that share nothing but the disk."""

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from bench.config import RunConfig
from bench.errors import UsageError
from bench.progress import Display, Relay, Silent, choose, relayed
from bench.running.engines.inline import Inline
from bench.running.loop import execute


class Processes:
    """The default engine.

    Small models leave most of a CPU idle when one process uses all cores; as many processes as cores, with one thread
    each, finish about 1.5 times as soon. On an accelerator runs go one after the other unless ``jobs`` says otherwise.
    """

    def __init__(self, *, jobs: int | None = None, progress: bool = True) -> None:
        self.jobs, self.progress = jobs, progress
        self._inline = Inline(progress=progress)
        self._running = ExitStack()
        self._pending: list[Future[Path]] = []
        self._workers: list[BaseProcess] = []

    def submit(self, configs: Sequence[RunConfig]) -> None:
        """Start the processes; a single run is carried out in this one."""
        workers = min(len(configs), self.jobs or _default_jobs(configs))
        if workers <= 1:
            self._inline.submit(configs)
            return
        context = multiprocessing.get_context("spawn")
        strangers = set(multiprocessing.active_children())
        events = context.Queue()
        events.cancel_join_thread()  # a worker that was killed may have held its lock
        threads = max(1, (os.cpu_count() or 1) // workers)
        begin = (threads, events, self.progress)
        self._pool = ProcessPoolExecutor(workers, context, initializer=_begin_worker, initargs=begin)
        self._running.enter_context(self._pool)
        self._running.enter_context(relayed(events))
        with _without_script():
            self._pending = [self._pool.submit(_execute_in_worker, config) for config in configs]
        self._workers = [child for child in multiprocessing.active_children() if child not in strangers]

    def watch(self) -> list[Path]:
        """Wait for all; the first error ends the whole, and what is recorded is kept.

        Raises:
            UsageError: a process was killed.
        """
        if not self._pending:
            return self._inline.watch()
        display = choose(self.progress)
        with self._running:
            display.begin("runs", len(self._pending))
            try:
                for future in as_completed(self._pending):
                    future.result()
                    display.advance(1)
                display.end()
                return [future.result() for future in self._pending]
            except BaseException as error:
                self._pool.shutdown(wait=False, cancel_futures=True)
                _stop(self._workers, patience=5.0 if isinstance(error, KeyboardInterrupt) else 0.0)
                if isinstance(error, BrokenProcessPool):
                    raise _killed() from error
                raise


@contextmanager
def _without_script() -> Iterator[None]:
    """Within the block, processes begin without the script that called `bench.run`.

    A process that is spawned imports the caller's script to find what it is to do. Ours lies in this package; a script
    that does not guard its calls with ``if __name__ == "__main__"`` would begin all over in every worker.
    """
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def _killed() -> UsageError:
    return UsageError(
        "a worker process was killed, perhaps for want of memory. What it recorded is kept: give the command again to "
        "resume, with fewer --jobs if memory is short"
    )


def _stop(processes: Sequence[BaseProcess], patience: float) -> None:
    """End processes, whose work the next command resumes; Ctrl-C has reached them too, and they may record it."""
    until = time.monotonic() + patience
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
        process.terminate()


_display: Display = Silent()  # of a worker process; set once, when it begins


def _begin_worker(threads: int, events: Any, progress: bool) -> None:
    global _display
    threading.Thread(target=_die_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # bars are the command's to show
    _display = Relay(events.put, os.getpid()) if progress else Silent()


def _die_with_parent() -> None:
    """A killed command must not go on in its workers: they would hold the locks that the next command needs."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "only workers have a parent to die with"
    parent.join()
    os._exit(1)


def _execute_in_worker(config: RunConfig) -> Path:
    return execute(config, display=_display)


def _default_jobs(configs: Sequence[RunConfig]) -> int:
    on_cpu = all(c.device == "cpu" or (c.device == "auto" and not torch.cuda.is_available()) for c in configs)
    return (os.cpu_count() or 1) if on_cpu else 1
