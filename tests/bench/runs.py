"""Made-up headers, records and whole runs for the tests of the showing wing."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.records import SCHEMA_VERSION, Record, Run, RunHeader, former_ceiling, load_run, open_run


def make_header(**changes) -> RunHeader:
    fields = {
        "schema_version": SCHEMA_VERSION,
        "suite": "mini",
        "encoder": "fare4",
        "task": "vqa",
        "task_version": 1,
        "dataset": "mini-vqa",
        "metric": "accuracy",
        "worst": "min",
        "norm": "linf",
        "attack": "ensemble",
        "radii": (2.0, 4.0),
        "seed": 0,
        "n_samples": 3,
        "limit": None,
        "model": "mini-llava",
        "dataset_fingerprint": "d41d8c",
        "weights": {"encoder": "ab12"},
        "attack_steps": [{"name": "apgd-ce", "steps": 100}],
        "protocol": {"precision": "float32"},
        "code": {"commit": "0123abc", "dirty": False},
        "packages": {"numpy": "2.0"},
        "device": "cpu",
        "started": "2024-01-01T00:00:00+00:00",
    }
    fields |= changes
    return RunHeader(**{"ceiling": former_ceiling(fields["metric"])} | fields)


def make_record(sample_id="s0", step="clean", radius=0.0, score=100.0, **changes) -> Record:
    fields = {
        "group": f"image of {sample_id}",
        "prediction": "a red circle",
        "loss": 0.25,
        "distance": radius,
        "evaluations": 0,
        "error": None,
        "seconds": 0.5,
    }
    return Record(sample_id=sample_id, step=step, radius=radius, score=score, **fields | changes)


def make_run(
    directory: Path,
    scores: Mapping[float, Sequence[float]],
    status="complete",
    groups: Sequence[str] | None = None,
    **header,
) -> Run:
    """A run on disk; `scores` maps each radius in 1/255 (0 for clean) to the scores of s0, s1, ..."""
    n = len(scores[0])
    fields = {"radii": tuple(float(eps) for eps in scores if eps), "n_samples": n}
    records = [
        make_record(f"s{i}", "apgd" if eps else "clean", float(eps), score, group=groups[i] if groups else f"g{i}")
        for eps, column in scores.items()
        for i, score in enumerate(column)
    ]
    with open_run(directory, make_header(**fields | header)) as store:
        store.append(records)
        store.finish(status)
    return load_run(directory)


def in_memory(scores, groups=None, name="run", **header) -> Run:
    """A whole run; `scores` maps each radius to the scores of s0, s1, ..."""
    n = len(scores[0])
    fields = {"status": "complete", "n_samples": n, "radii": tuple(float(eps) for eps in scores if eps)}
    records = [
        make_record(
            f"s{i}",
            "apgd" if eps else "clean",
            float(eps),
            float(score),
            group=groups[i] if groups else f"g{i}",
        )
        for eps, column in scores.items()
        for i, score in enumerate(column)
    ]
    return Run(Path(name), make_header(**fields | header), records)
