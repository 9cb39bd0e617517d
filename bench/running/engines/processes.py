"""Carrying out several runs at once: independent processes, one thread each, that share nothing but the disk.

The process that waits for them imports torch, for it asks for accelerators, but none of the libraries that models need.
"""

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from bench.config import RunConfig
from bench.progress import Display, Relay, Silent, choose, relayed
from bench.running.engines.devices import devices_for, usual_jobs
from bench.running.engines.driving import Drive, unknown_need
from bench.running.engines.inline import Inline
from bench.running.engines.places import SHARING, Place, Places
from bench.running.forks import context

PATIENCE = 5.0  # seconds in which workers may record that they were interrupted


class Processes:
    """The default engine.

    Small models leave most of a CPU idle when one process uses all cores; as many processes as cores, with one thread
    each, finish about 1.5 times as soon. On accelerators there are as many runs at once as their memory has room for.
    """

    killed: tuple[type[Exception], ...] = (BrokenProcessPool,)

    def __init__(self, *, jobs: int | None = None, progress: bool = True) -> None:
        self.jobs, self.progress = jobs, progress
        self._inline = Inline(progress=progress)
        self._drive: Drive | None = None
        self._pools: dict[int, ProcessPoolExecutor] = {}  # one of a single process for each slot
        self._futures: list[Future[Path]] = []
        self._workers: list[BaseProcess] = []

    def submit(self, configs: Sequence[RunConfig]) -> None:
        """Plan where each run goes; a single run is carried out in this process."""
        devices = devices_for(configs[0].device)
        slots = min(len(configs), self.jobs or usual_jobs(configs[0].device, devices))
        if slots <= 1:
            self._inline.submit(configs)
            return
        sharing = SHARING if self.jobs is None or not devices else -(-self.jobs // len(devices))
        self.threads = max(1, (os.cpu_count() or 1) // slots)
        self._context = context(on_accelerators=bool(devices))
        self._drive = Drive(self, configs, Places(slots, devices, sharing), _needs() if devices else unknown_need)

    def watch(self) -> list[Path | Exception]:
        """Wait for all; what is recorded is kept, whatever becomes of a run."""
        if self._drive is None:
            return self._inline.watch()
        with ExitStack() as shown:
            self.events = self._context.Queue()
            self.events.cancel_join_thread()  # a worker that was killed may have held its lock
            shown.enter_context(relayed(self.events))
            return self._drive.carry_out(choose(self.progress))

    def start(self, config: RunConfig, place: Place) -> Future[Path]:
        """Begin a run in the process of a slot, or in a new one after it was killed."""
        try:
            future = self._begin(config, place)
        except BrokenProcessPool:
            del self._pools[place.slot]
            future = self._begin(config, place)
        self._futures.append(future)
        return future

    def _begin(self, config: RunConfig, place: Place) -> Future[Path]:
        strangers = set(multiprocessing.active_children())
        if place.slot not in self._pools:
            begin = (dict(os.environ), self.threads, self.events, self.progress)
            self._pools[place.slot] = ProcessPoolExecutor(1, self._context, initializer=_begin_worker, initargs=begin)
        with _without_script():
            future = self._pools[place.slot].submit(_execute_in_worker, config, place)
        self._workers += [child for child in multiprocessing.active_children() if child not in strangers]
        return future

    def stop(self) -> None:
        """End the processes: those that still work after a while, whose runs the next command resumes."""
        working = not all(future.done() for future in self._futures)
        for pool in self._pools.values():
            pool.shutdown(wait=not working, cancel_futures=True)
        if working:
            _stop(self._workers, PATIENCE)


def _needs() -> Callable[[RunConfig], int | None]:
    """What tells how much of a device's memory a run needs."""
    from bench.running.engines.need import need_of

    return need_of


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


def _stop(processes: Sequence[BaseProcess], patience: float) -> None:
    """End processes, whose work the next command resumes; Ctrl-C has reached them too, and they may record it."""
    until = time.monotonic() + patience
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
        process.terminate()


_display: Display = Silent()  # of a worker process; set once, when it begins


def _begin_worker(environment: Mapping[str, str], threads: int, events: Any, progress: bool) -> None:
    from transformers.utils import logging as transformers_logging

    global _display
    os.environ.clear()  # a worker is forked from a process that may have begun before the caller last set something
    os.environ.update(environment)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # bars are the command's to show
    events.cancel_join_thread()  # another worker may be killed while it holds the queue's lock
    _display = Relay(events.put, os.getpid()) if progress else Silent()


def _die_with_parent() -> None:
    """A killed command must not go on in its workers: they would hold the locks that the next command needs."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "only workers have a parent to die with"
    parent.join()
    os._exit(1)


def _execute_in_worker(config: RunConfig, place: Place) -> Path:
    from bench.running.loop import execute

    if place.device is None:
        return execute(config, display=_display)
    if place.device.startswith("cuda") and place.share < 1:
        torch.cuda.set_per_process_memory_fraction(place.share, torch.device(place.device))
    try:
        return execute(replace(config, device=place.device), display=_display)
    finally:
        torch.cuda.empty_cache()  # what it held is the next run's
