"""The regression gate's doing half: runs a part of the committed runs again and compares sample by sample."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.check import Finding, compare_to_baseline
from bench.config import resolve
from bench.pool import execute_all
from bench.records import Run, load_run

GUARDED_TASKS = ("zeroshot", "vqa")  # a caption's CIDEr depends on the other images, so a part has others
GUARDED_ENCODERS = ("clip", "fare4")
GUARDED_DATASETS = ("mini-shape", "mini-vqa")


def rerun_guarded(baseline: Sequence[Run], samples: int, jobs: int | None = None) -> list[Finding]:
    """Run the first ``samples`` samples of each guarded run again, and compare with the committed scores."""
    guarded = [run for run in baseline if is_guarded(run)]
    with tempfile.TemporaryDirectory() as scratch:
        configs = [
            config
            for run in guarded
            for config in resolve(
                encoder=run.header.encoder, task=run.header.task, suite=run.header.suite, eps=run.header.eps_255,
                attack=run.header.attack, limit=samples, seed=run.header.seed, output=Path(scratch),
            )
            if config.dataset == run.header.dataset
        ]  # fmt: skip
        again = [load_run(directory) for directory in execute_all(configs, jobs=jobs)]
        return compare_to_baseline(again, guarded, allow_partial=True)


def is_guarded(run: Run) -> bool:
    """Whether a run is cheap and steady enough to be part of every check."""
    header = run.header
    return (
        header.encoder in GUARDED_ENCODERS
        and header.task in GUARDED_TASKS
        and header.dataset in GUARDED_DATASETS
        and "surrogate" not in header.protocol
    )
