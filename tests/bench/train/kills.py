"""Runs ``bench train`` in processes that die by SIGKILL at a chosen moment; see `tests.bench.running.kills`."""

import io
import os
import signal
from collections.abc import Sequence
from typing import Any

import torch

from bench.cli import main
from bench.train import export, log
from bench.train.checkpoint import Run
from bench.train.evaluate import HeldOut
from bench.train.step import Stepper
from tests.bench.running import kills

PLACES: dict[str, tuple[Any, str, bool]] = {
    "attacking": (Stepper, "_accumulate", True),
    "updating": (torch.optim.AdamW, "step", True),
    "updated": (torch.optim.AdamW, "step", False),
    "evaluating": (HeldOut, "evaluate", True),
    "replacing": (os, "replace", True),
    "replaced": (os, "replace", False),
    "resuming": (torch.optim.AdamW, "load_state_dict", True),
    "resumed": (Run, "resume", False),
    "forgetting": (log, "keep_rows_before", True),
    "exporting": (export, "save_file", False),
}


def arm(moment: str, nth: int) -> None:
    """Makes this process die at the nth visit of a moment, or after that many milliseconds of processor time."""
    if moment == "saving":
        _tear(nth)
    elif moment == "timer":  # the default action of this signal ends the process at once, as SIGKILL does
        signal.setitimer(signal.ITIMER_PROF, nth / 1000)
    elif moment != "none":
        owner, name, before = PLACES[moment]
        kills._at(owner, name, nth, before=before)


def _tear(nth: int) -> None:
    """Dies after half of the nth checkpoint is written."""
    save, calls = torch.save, 0

    def half(state: Any, file: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == nth:
            whole = io.BytesIO()
            save(state, whole)
            file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
            file.flush()
            kills._die()
        save(state, file)

    torch.save = half


def doomed(words: Sequence[str], rank: int, moment: str, nth: int) -> None:
    """One of the processes that train together: gives the command, and dies at a moment if its rank is this one."""
    if os.environ["RANK"] == str(rank):
        arm(moment, nth)
    main(words)
