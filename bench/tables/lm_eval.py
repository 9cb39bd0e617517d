"""Results as lm-evaluation-harness and lmms-eval write them: ``results_*.json``, a file per model.

A task there has one number per metric. Here it is a dataset at a radius: ``vqa_mini-vqa`` is clean,
``vqa_mini-vqa_apgd_linf_4`` under the attack. Scores keep the metric's scale, percent mostly. The standard error is the
interval's width over that of a normal distribution's; the interval itself stands in the task's configuration.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.analysis.cells import AVERAGE, Measure
from bench.analysis.facts import Facts
from bench.analysis.stats import RESAMPLES, Z95
from bench.errors import UsageError
from bench.records import Run, RunHeader, write_atomically
from bench.records.files import explained, unlinked
from bench.tables.table import DOUBTFUL, PARTIAL, Layout
from bench.trust.places import LONGEST_NAME, safe_name

SOURCE = "robust-vlm-bench"
SHORT = 100  # characters of a folder's name that a digest follows
_Model = tuple[str, ...]


def write_lm_eval(layout: Layout, runs: Sequence[Run], facts: Facts, folder: Path) -> list[Path]:
    """Write ``FOLDER/MODEL/results_TIME.json`` of each model; equal runs give equal files.

    Raises:
        UsageError: two runs of a model have different numbers for one task: which is meant must be chosen; or a run
            does not say when it was made.
        RecordsError: a file cannot be written, or would be through a link.
    """
    models: dict[_Model, list[Measure]] = {}
    for one in layout.measures(runs, facts):
        models.setdefault(_model(one.header), []).append(one)
    if not models:
        raise UsageError("no run has a score to export; make some with `bench run`")
    names = ["+".join(part for part in model if part) for model in models]
    written = []
    for name, place, measures in zip(names, _folders(names), models.values(), strict=True):
        ended = max((_ended(header, one) for one in measures for header in one.headers), key=datetime.timestamp)
        path = unlinked(folder / place / f"results_{ended.isoformat().replace(':', '-')}.json", folder)
        results = json.dumps(_results(name, measures), indent=2, ensure_ascii=False) + "\n"
        with explained("create", path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, results)
        written.append(path)
    return written


def _folders(names: Sequence[str]) -> list[str]:
    """A folder's name for each model, another for each: of two that would have the same both get a digest."""
    plain = [_for_file(name) for name in names]
    count = Counter(plain)
    return [
        one if count[one] == 1 else f"{one[:SHORT]}-{sha256(name.encode()).hexdigest()[:6]}"
        for name, one in zip(names, plain, strict=True)
    ]


def _model(header: RunHeader) -> _Model:
    """What is asked: encoder, vision-language model and defence."""
    settings = [f"{key}={value}" for key, value in sorted(header.victim_settings.items())]
    return (header.encoder, header.model or "", *settings, header.defence or "")


def _for_file(name: str) -> str:
    """A model's name as a folder's, as lm-evaluation-harness makes it; a digest of what can be none, such as ".."."""
    plain = re.sub(r'["<>:/|\\?*\[\]\x00-\x1f\x7f]+', "__", name)
    return plain if plain.strip(". ") and len(plain.encode()) <= LONGEST_NAME else safe_name(name)


def _task(one: Measure) -> str:
    header = one.header
    name = f"{header.task}_{one.dataset}"
    source = f"_from_{header.surrogate_model or header.surrogate}" if one.surrogate else ""
    return f"{name}_{header.attack}_{header.norm}_{one.radius:g}{source}" if one.radius else name


def _results(name: str, measures: Sequence[Measure]) -> dict[str, Any]:
    tasks = _by_task(measures)
    single = {key: one for key, one in tasks.items() if one.dataset != AVERAGE}
    groups = {key: one for key, one in tasks.items() if one.dataset == AVERAGE}
    headers = [header for one in measures for header in one.headers]
    first = min(headers, key=lambda h: h.started)
    began = min(_moment(h.started, one).timestamp() for one in measures for h in one.headers)
    ended = max(_ended(h, one).timestamp() for one in measures for h in one.headers)
    return {
        "results": {key: _entry(one) for key, one in tasks.items()},
        **({"groups": {key: _entry(one) for key, one in groups.items()}} if groups else {}),
        "group_subtasks": {key: _members(one, single) if key in groups else [] for key, one in tasks.items()},
        "configs": {key: _config(key, one) for key, one in single.items()},
        "versions": {key: one.header.task_version for key, one in tasks.items()},
        "n-shot": {key: _shots(one.header) for key, one in tasks.items()},
        "higher_is_better": {key: {_metric(one): not one.lower_is_better} for key, one in tasks.items()},
        "n-samples": {key: _counts(one) for key, one in single.items()},
        "config": {
            "model": SOURCE,
            "model_args": f"encoder={first.encoder},vlm={first.model or ''},defence={first.defence or ''}",
            "batch_size": first.config.get("batch_size"),
            "device": first.device,
            "limit": first.limit,
            "bootstrap_iters": RESAMPLES,
            **{f"{what}_seed": first.seed for what in ("random", "numpy", "torch", "fewshot")},
        },
        "git_hash": first.commit,
        "date": began,
        "transformers_version": first.packages.get("transformers"),
        "task_hashes": {key: one.header.dataset_fingerprint for key, one in single.items()},
        "model_source": SOURCE,
        "model_name": name,
        "model_name_sanitized": _for_file(name),
        "start_time": began,
        "end_time": ended,
        "total_evaluation_time_seconds": str(ended - began),
        "robust_vlm_bench_version": version(SOURCE),
    }


def _by_task(measures: Iterable[Measure]) -> dict[str, Measure]:
    """Numbers by task; a clean one may come from several runs if it is the same."""
    found: dict[str, Measure] = {}
    for one in measures:
        known = found.setdefault(_task(one), one)
        if known.estimate != one.estimate:
            places = " and ".join(str(m.directories[0]) for m in (known, one))
            raise UsageError(f"{_task(one)} has two numbers, choose one with --where or give its folder: {places}")
    return found


def _metric(one: Measure) -> str:
    """Such as "vqa_accuracy": without the unit, for a comma ends the name."""
    return re.sub(r"\W+", "_", one.metric.partition("(")[0].strip().lower())


def _entry(one: Measure) -> dict[str, Any]:
    estimate, metric = one.estimate, _metric(one)
    marks = (PARTIAL if not one.whole else "") + (DOUBTFUL if one.doubts else "")
    return {
        "alias": _task(one) + marks,
        f"{metric},none": estimate.value,
        f"{metric}_stderr,none": (estimate.high - estimate.low) / (2 * Z95),
    }


def _config(key: str, one: Measure) -> dict[str, Any]:
    header = one.header
    told = {"low": one.estimate.low, "high": one.estimate.high, "partial": not one.whole, "checks": list(one.doubts)}
    attacked = {"attack": header.attack, "norm": header.norm, "radius": one.radius} if one.radius else {}
    asked = {"suite": header.suite, "protocol": header.protocol_name, "precision": header.precision}
    metadata = {"version": header.task_version, **told, **attacked, **asked}
    return {"task": key, "dataset_path": one.dataset, "num_fewshot": 0, "metadata": metadata}


def _counts(one: Measure) -> dict[str, int]:
    return {"original": one.header.n_samples, "effective": one.estimate.n}


def _members(average: Measure, single: dict[str, Measure]) -> list[str]:
    runs = set(average.directories)
    return [key for key, one in single.items() if one.radius == average.radius and runs & set(one.directories)]


def _ended(header: RunHeader, one: Measure) -> datetime:
    return _moment(header.ended or header.started, one)


def _moment(said: str, one: Measure) -> datetime:
    """When it was, as a header says.

    Raises:
        UsageError: the header says nothing of the kind.
    """
    try:
        found = datetime.fromisoformat(said)
        found.timestamp()
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{one.directories[0] / 'run.json'} says {said[:40]!r} for a time; restore it") from error
    return found


def _shots(header: RunHeader) -> int:
    said = header.victim_settings.get("shots", "0")
    return int(said) if said.isascii() and said.isdecimal() and len(said) < 10 else 0
