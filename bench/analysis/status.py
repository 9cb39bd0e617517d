"""How a sweep is doing: what is done, running, failed and waiting, and the time left. From files alone.

Work is counted in gradient evaluations: what a run may still need is that of all steps at all radii for every sample
that is not broken yet, but for radii that a larger one has spared it so far; the time left is rather too long than too
short.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.records import CLEAN, Record, RecordsError, Run, RunHeader, find_runs, load_run
from bench.records.inferred import inferred
from bench.records.locks import is_written
from bench.records.shards import shards_in
from bench.records.sweeps import FOLDER, Planned, read_sweeps
from bench.trust.places import inside

DONE, RUNNING, FAILED, STOPPED, WAITING = STATES = ("done", "running", "failed", "stopped", "waiting")
QUIET = 600.0  # seconds without a record after which a run on another machine counts as stopped


@dataclass(frozen=True)
class State:
    """How one run is doing.

    Attributes:
        directory: the run's.
        state: one of `STATES`; stopped: begun and not ended, and nothing writes it, as after a kill.
        task: empty for a run of which there is no header yet.
        samples: how many it scores at most.
        asked: how many have a clean answer.
        spent: seconds of work.
        evaluations: gradient evaluations spent.
        left: gradient evaluations that it may still need.
        quiet: seconds since the last record; None without one.
        why: why it failed.
    """

    directory: Path
    state: str
    task: str = ""
    samples: int = 0
    asked: int = 0
    spent: float = 0.0
    evaluations: int = 0
    left: int = 0
    quiet: float | None = None
    why: str = ""


@dataclass(frozen=True)
class Status:
    """How the runs below an output folder are doing; `left` is None where nothing tells how long they take."""

    states: tuple[State, ...]
    seconds_left: float | None

    def count(self, state: str) -> int:
        """How many runs are in a state."""
        return sum(one.state == state for one in self.states)

    def as_json(self) -> dict[str, Any]:
        """The same as JSON data."""
        states = [asdict(one) | {"directory": str(one.directory)} for one in self.states]
        return {"runs": states, "seconds_left": self.seconds_left}


def status(root: Path, now: Callable[[], float] = time.time) -> Status:
    """How the runs at and below a folder are doing, those that were asked for and have not begun included.

    Raises:
        RecordsError: there is no such folder, it holds neither runs nor a note of what was asked for, or the note is
            damaged.
        UsageError: a note names a run outside its folder.
    """
    found = {directory: _state_of(directory, now()) for directory in find_runs(root)}
    planned = dict(pair for folder in _sweep_folders(root) for pair in _planned(folder.parent))
    for directory, run in planned.items():
        known = found.get(directory)
        if known is None or (run.failed is not None and known.state not in (DONE, RUNNING)):
            found[directory] = _of_plan(directory, run, known)
    if not found:
        raise RecordsError(f"no runs under {root}; make some with `bench run`")
    states = tuple(found[directory] for directory in sorted(found))
    return Status(states, _seconds_left(states))


def _sweep_folders(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob(FOLDER) if path.is_dir())


def _planned(output: Path) -> list[tuple[Path, Planned]]:
    runs = [run for sweep in read_sweeps(output) for run in sweep.runs]
    return [(inside(output, run.directory, f"{output / FOLDER}: the run"), run) for run in runs]


def _of_plan(directory: Path, run: Planned, known: State | None) -> State:
    """A run that was asked for and has not begun, or that failed before its own records say so."""
    if known is not None:
        return State(**vars(known) | {"state": FAILED, "why": run.failed or ""})
    state = WAITING if run.failed is None else FAILED
    return State(directory, state, samples=run.samples, left=run.samples * run.passes, why=run.failed or "")


def _state_of(directory: Path, now: float) -> State:
    try:
        run = load_run(directory)
    except RecordsError as error:
        return State(directory, FAILED, why=str(error))
    attacks = [record for record in run.records if record.step != CLEAN]
    quiet = _quiet(directory, now)
    state = {"complete": DONE, "failed": FAILED}.get(run.header.status) or _under_way(directory, quiet)
    return State(
        directory,
        state,
        run.header.task,
        run.header.n_samples,
        sum(record.step == CLEAN for record in run.records),
        sum(record.seconds for record in run.records),
        sum(record.evaluations for record in attacks),
        0 if state == DONE else _evaluations_left(run),
        quiet,
        _why(run) if state == FAILED else "",
    )


def _why(run: Run) -> str:
    errors = [record.error for record in run.records if record.error is not None]
    return f"{len(errors)} samples failed; the first: {errors[0]}" if errors else "it was cut short by an error"


def _places(directory: Path) -> list[Path]:
    """Where a run is written: its directory, and its shards."""
    return [directory, *(shard.folder(directory) for shard in shards_in(directory))]


def _quiet(directory: Path, now: float) -> float | None:
    files = [place / "records.jsonl" for place in _places(directory)]
    times = [path.stat().st_mtime for path in files if path.exists()]
    return max(0.0, now - max(times)) if times else None


def _under_way(directory: Path, quiet: float | None) -> str:
    written = [is_written(place) for place in _places(directory)]
    is_lively = None in written and quiet is not None and quiet < QUIET
    return RUNNING if True in written or is_lively else STOPPED


def _evaluations_left(run: Run) -> int:
    """What the samples that are not broken yet may still take."""
    header, records = run.header, run.records
    spent: dict[str, int] = {}
    broken: set[str] = set()
    for record in records:
        spent[record.sample_id] = spent.get(record.sample_id, 0) + record.evaluations
        if _surely_broken(header, record):
            broken.add(record.sample_id)
    at_one = sum(step.steps for step in header.steps)
    spared = Counter(sample for radius in header.radii for sample in inferred(header, records, radius))
    most = {sample: at_one * (len(header.radii) - spared[sample]) for sample in spent}
    begun = sum(max(0, most[sample] - done) for sample, done in spent.items() if sample not in broken)
    return begun + at_one * len(header.radii) * max(0, header.n_samples - len(spent))


def _surely_broken(header: RunHeader, record: Record) -> bool:
    """Whether a score can be no worse, whatever the task's own threshold."""
    return record.score is not None and record.score == (0.0 if header.worst == "min" else header.ceiling)


def _seconds_left(states: Sequence[State]) -> float | None:
    """Of all runs that are not done: their work at the pace of those of the same task, shared by those that run."""
    todo = [one for one in states if one.state in (RUNNING, WAITING, STOPPED) and one.left]
    paces = [_pace(one, states) for one in todo]
    known = [pace for pace in paces if pace is not None]
    if todo and not known:
        return None
    usual = sum(known) / max(1, len(known))
    work = sum(one.left * (usual if pace is None else pace) for one, pace in zip(todo, paces, strict=True))
    return work / max(1, sum(one.state == RUNNING for one in states))


def _pace(run: State, states: Iterable[State]) -> float | None:
    """Seconds for each gradient evaluation: its own, else those of its task, else all."""
    others = list(states)
    for like in ([run], [one for one in others if one.task == run.task], others):
        if evaluations := sum(one.evaluations for one in like):
            return sum(one.spent for one in like) / evaluations
    return None
