"""Carrying out several runs at once: independent processes, one thread each, that share nothing but the disk."""

import multiprocessing
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from bench.config import RunConfig
from bench.progress import Display, Relay, Silent, choose, relayed
from bench.running.loop import execute


def execute_all(configs: Sequence[RunConfig], *, jobs: int | None = None, progress: bool = True) -> list[Path]:
    """Carry out runs and return their directories in order.

    Small models leave most of a CPU idle when one process uses all cores; as many processes as cores, with one thread
    each, finish about 1.5 times as soon. On an accelerator runs go one after the other unless ``jobs`` says otherwise.
    """
    workers = min(len(configs), jobs or _default_jobs(configs))
    display = choose(progress)
    if workers <= 1:
        return [execute(config, display=display) for config in configs]
    context = multiprocessing.get_context("spawn")
    strangers = set(multiprocessing.active_children())

    def workers_of_pool() -> list[BaseProcess]:
        return [child for child in multiprocessing.active_children() if child not in strangers]

    events = context.Queue()
    events.cancel_join_thread()  # a worker that was killed may have held its lock
    threads = max(1, (os.cpu_count() or 1) // workers)
    with (
        ProcessPoolExecutor(workers, context, initializer=_begin_worker, initargs=(threads, events, progress)) as pool,
        relayed(events),
    ):
        display.begin("runs", len(configs))
        pending = [pool.submit(_execute_in_worker, config) for config in configs]
        try:
            for future in as_completed(pending):
                future.result()  # the first error ends the whole
                display.advance(1)
            display.end()
            return [future.result() for future in pending]
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            _stop(workers_of_pool(), patience=5.0 if isinstance(error, KeyboardInterrupt) else 0.0)
            raise


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
    transformers_logging.disable_progress_bar()  # bars are the command's to show
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
