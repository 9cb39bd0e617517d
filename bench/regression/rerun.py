"""The regression gate: reads runs, or carries out a part of the baseline again, and compares sample by sample."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench import registry
from bench.config.naming import known_encoders
from bench.config.suite import load_suite
from bench.models.victims.load import is_black_box
from bench.records import RecordsError, Run, RunHeader, load_run, load_runs
from bench.regression.baseline import stale_blocks, stale_scores
from bench.regression.compare import Finding, added, by_place, compare_gradients, compare_to_baseline

GUARDED_ENCODERS = ("clip", "fare4")
GUARDED_DATASETS = ("mini-shape", "mini-vqa")
GUARDED_DEFENCES = (None, "clipure")  # the others take seconds for each sample
_NO_NUMBER = ("device", "batch_size", "save_adversarial", "force", "shards", "on", "log_to")
HERE = dict.fromkeys(_NO_NUMBER)  # moves no number: as here


def load_baseline(baseline: Path) -> list[Run] | Finding:
    """The baseline's runs, or the finding that there is none: what was not compared has not passed."""
    try:
        return load_runs([baseline])
    except RecordsError as error:
        return Finding("baseline", False, "missing", f"the baseline cannot be read: {error}")


def check_integrity(baseline: Sequence[Run], document: Path | None) -> list[Finding]:
    """Whether the score files and the document still say what the baseline's records say."""
    findings = []
    for path in stale_scores(baseline):
        words = f"{path} is not what the records say; run `bench check --update` with --runs and review the change"
        findings.append(Finding(str(path), False, "stale", words))
    for name in stale_blocks(document, baseline) if document else ():
        words = f"block {name!r} of {document} is not what the records say; run `bench table --all --write {document}`"
        findings.append(Finding(name, False, "stale", words))
    return findings


def check_runs(baseline: Sequence[Run], roots: Sequence[Path], rise: float | None = None) -> list[Finding]:
    """Compare the runs under ``roots`` with the baseline, one for one; see `_gradients` for the rise."""
    try:
        runs = load_runs(roots)
    except RecordsError as error:
        return [Finding("runs", False, "missing", f"the runs cannot be read: {error}")]
    return compare_to_baseline(runs, baseline) + _gradients(runs, baseline, rise)


def _gradients(runs: Sequence[Run], baseline: Sequence[Run], rise: float | None) -> list[Finding]:
    """Findings on gradient evaluations, where they may rise by so many percent at most."""
    return [] if rise is None else compare_gradients(runs, baseline, rise)


def changes(baseline: Sequence[Run], roots: Sequence[Path]) -> list[Finding]:
    """What the runs under ``roots`` would change in the baseline, the runs that they leave alone aside."""
    new, old = by_place(load_runs(roots)), by_place(baseline)
    both = [place for place in new if place in old]
    compared = compare_to_baseline([new[p] for p in both], [old[p] for p in both]) if both else []
    return compared + [added(place) for place in new if place not in old]


def rerun(baseline: Sequence[Run], samples: int, jobs: int | None = None, rise: float | None = None) -> list[Finding]:
    """Run the first ``samples`` samples of each guarded run again, and compare with the committed scores.

    See `_gradients` for the rise.
    """
    from bench.config import request_of, resolve
    from bench.running.engines import execute_all

    guarded = [run for run in baseline if is_guarded(run)] or [run for run in baseline if can_run_in_part(run)]
    if not guarded:
        words = "the baseline has no run that can be run again in part; give whole new runs with --runs"
        return [Finding("baseline", False, "missing", words)]
    with tempfile.TemporaryDirectory() as scratch:
        configs = [
            replace(config, chosen_order=run.header.chosen_order or None)  # fewer samples might choose another one
            for run in guarded
            for config in resolve(request_of(run.header, limit=samples, output=Path(scratch), **HERE))
        ]
        again = [load_run(directory) for directory in execute_all(configs, jobs=jobs)]
        return compare_to_baseline(again, guarded, allow_limit=True) + _gradients(again, guarded, rise)


def can_run_in_part(run: Run) -> bool:
    """Whether the first samples of a run score by themselves what they score within the whole.

    A caption's CIDEr depends on the other images. An endpoint is never asked because a file says so, nor is a judge
    that a plugin brings; images made on a surrogate need an encoder of the suite there.
    """
    judge = (run.header.judge or "words").partition("?")[0]
    if not registry.is_built_in("bench.judges", judge):
        return False
    if is_black_box(run.header.model or "") or run.header.images is not None:
        return False
    whole = registry.attribute("bench.tasks", run.header.task, "part_scores_as_whole")
    return bool(whole) and _has_its_surrogates(run.header)


def _has_its_surrogates(header: RunHeader) -> bool:
    if header.surrogate_model is not None:
        return False
    return not header.surrogates or set(header.surrogates) <= known_encoders(load_suite(header.suite))


def is_guarded(run: Run) -> bool:
    """Whether a run of the mini suite is cheap and steady enough to be part of every check."""
    header = run.header
    known = header.encoder in GUARDED_ENCODERS and header.dataset in GUARDED_DATASETS
    cheap = header.surrogate is None or header.task == "zeroshot"  # images for another model take all steps
    return known and cheap and header.defence in GUARDED_DEFENCES and can_run_in_part(run)
