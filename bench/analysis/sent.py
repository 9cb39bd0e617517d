"""A finished run as sinks keep it: its scores by radius, and the facts that its numbers depend on."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from bench import sinks
from bench.analysis.cells import measured
from bench.records import Run
from bench.sinks.base import Fact, Subject
from bench.trust.places import inside

LETTERS = 32  # of a digest


def send(runs: Iterable[Run], specs: Sequence[str]) -> None:
    """Send the scores of runs to sinks; one that fails is named in a warning.

    Args:
        runs: on disk; those that were sent before replace what was sent.
        specs: of sinks, as `bench.sinks.make_sink` reads them.

    Raises:
        UsageError: a specification that makes no sense.
    """
    if not specs:
        return
    for run in runs:
        followed = sinks.follow(subject_of(run), specs)
        followed.log(0, numbers_of(run))
        followed.close()


def numbers_of(run: Run) -> dict[str, float]:
    """The score at each radius, as in "score/clean" and "score/4", with the ends of its interval and its n.

    "partial" is 1 for a number that is not to be quoted; "failed_checks" counts sanity checks.
    """
    found = {"partial": float(run.header.partial is not None), "failed_checks": float(len(run.header.doubts))}
    for one in measured([run]):
        label = f"{one.radius:g}" if one.radius else "clean"
        estimate = one.estimate
        values = {"score": estimate.value, "low": estimate.low, "high": estimate.high, "n": float(estimate.n)}
        found |= {f"{name}/{label}": value for name, value in values.items()}
    return found


def subject_of(run: Run) -> Subject:
    """What a run is: a name, a digest of its header, and its facts. No place of a machine is among them.

    Raises:
        UsageError: the name, of which sinks make a folder's, would leave that of the sink.
    """
    header = run.header
    bare = replace(header, ended=None, status="started", checks=[], config={}, notes=()).to_json()
    identity = hashlib.sha256(bare.encode()).hexdigest()[:LETTERS]
    where = f"{run.directory / 'run.json'}: suite and task,"
    name = inside(Path(), f"{header.suite}/{header.task}/{run.directory.resolve().name}", where)
    return Subject("run", name.as_posix(), identity, _facts(run))


def _facts(run: Run) -> dict[str, Fact]:
    header = run.header
    asked = ("suite", "encoder", "task", "dataset", "metric", "norm", "attack", "seed", "n_samples", "limit", "model")
    moved = ("protocol_name", "precision", "tower", "defence", "surrogate", "surrogate_model", "commit", "dirty")
    facts: dict[str, Fact] = {name: getattr(header, name) for name in (*asked, *moved)}
    facts |= {f"victim.{name}": value for name, value in header.victim_settings.items()}
    facts |= {f"weights.{name}": digest for name, digest in header.weights.items()}
    return facts | {
        "radii": ", ".join(f"{radius:g}" for radius in header.radii),
        "dataset_fingerprint": header.dataset_fingerprint,
        "started": header.started,
    }
