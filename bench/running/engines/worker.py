"""What a worker on some machine does with one run."""

import os
from pathlib import Path

import torch

from bench.config import RunConfig
from bench.errors import UsageError
from bench.records import RecordsError
from bench.running.loop import execute


def attempt(config: RunConfig, folder: str, threads: int) -> Path | Exception:
    """Carry out a run; returns its directory, or what is wrong with what was asked.

    Args:
        config: the run, or a shard of one.
        folder: the working folder in which the command was given: its relative paths mean the same here.
        threads: of torch.
    """
    os.chdir(folder)
    torch.set_num_threads(threads)
    try:
        return execute(config)
    except (UsageError, RecordsError) as error:
        return error
