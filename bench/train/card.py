"""The model card of a trained encoder: recipe, data, curves, and what our own suite says of it."""

import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.analysis.cells import averaged, measured
from bench.config.facts import SUITE_FACTS
from bench.data.files import read_json
from bench.errors import UsageError
from bench.provenance import code_state
from bench.records import RecordsError, Run, find_runs, load_run
from bench.records.worst import eps_label
from bench.train.checkpoint import refuse_links
from bench.train.recipe import FLAWS
from bench.trust.text import for_markdown

CARD = "README.md"
TRAINING = "training.json"
METRICS = "metrics.jsonl"
CURVES = "curves.png"


def write_training(directory: Path, facts: Mapping[str, Any]) -> None:
    """Write what the card needs to know of a run, as JSON."""
    known = {
        **facts,
        "code": code_state(),
        "packages": {name: version(name) for name in ("torch", "open_clip_torch", "timm", "transformers", "numpy")},
        "machine": platform.machine(),
    }
    (directory / TRAINING).write_text(json.dumps(known, indent=2, default=str) + "\n")


def write_card(directory: Path, results: Path | None = None) -> Path:
    """Write ``README.md`` and ``curves.png`` in a run directory.

    Args:
        directory: with ``training.json`` and ``metrics.jsonl``.
        results: folder of recorded runs of ``bench run``; those on these very weights enter the card.
    """
    refuse_links(directory)
    facts = read_facts(directory)
    draw_curves(read_metrics(directory / METRICS), directory / CURVES)
    runs = [] if results is None else runs_of(facts["digest"], results)
    scores = scores_table(runs) if runs else _none_yet(directory)
    text = "\n\n".join([*sections(facts, directory), scores, _use(directory)]) + "\n"
    (directory / CARD).write_text(text, encoding="utf-8", errors="backslashreplace")
    return directory / CARD


def read_facts(directory: Path) -> dict[str, Any]:
    """What `write_training` wrote in a run directory.

    Raises:
        UsageError: it is not there, or is something else.
    """
    facts = read_json(directory / TRAINING, "facts of the training run")
    if not isinstance(facts, dict) or not isinstance(facts.get("digest"), str):
        raise _not_written_here(directory, "no digest")
    return facts


def _not_written_here(directory: Path, why: object) -> UsageError:
    return UsageError(
        f"{directory / TRAINING} is not as bench train writes it ({why}); give the training command again"
    )


def sections(facts: Mapping[str, Any], directory: Path) -> list[str]:
    """What a card says of a training, as Markdown.

    Args:
        facts: as in ``training.json``.
        directory: the run directory.

    Raises:
        UsageError: the facts are not what they should be.
    """
    try:
        shown = _harmless(facts)
        return [_head(shown), _recipe(shown), _data(shown), _curves(read_metrics(directory / METRICS))]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _not_written_here(directory, error) from error


def _harmless(value: Any) -> Any:
    """JSON data with every text in it as Markdown that shows it: a run directory may come from elsewhere."""
    if isinstance(value, dict):
        return {key: _harmless(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_harmless(inner) for inner in value]
    return for_markdown(value) if isinstance(value, str) else value


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Rows of a metrics file, without a last row that a crash cut short."""
    lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
    return [row for line in lines if (row := _row(line)) is not None]


def _row(line: str) -> dict[str, float] | None:
    """The numbers of a line; None for a line that is none."""
    try:
        row = json.loads(line)
        return {str(key): float(value) for key, value in row.items()} if "step" in row else None
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None


def draw_curves(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Loss, cosines and learning rate over steps, as a picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.2), layout="constrained")
    panels: dict[str, tuple[str, ...]] = {
        "loss": ("loss",),
        "cosine to the original": ("cosine_clean", "cosine_attacked", "eval_cosine_clean", "eval_cosine_attacked"),
        "learning rate": ("rate",),
    }
    for axes, (title, keys) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for key in keys:
            points = [(row["step"] + 1, row[key]) for row in rows if key in row]
            if points:
                axes.plot(*zip(*points, strict=True), label=key, marker="." if key.startswith("eval") else "")
        axes.set_title(title)
        axes.set_xlabel("updates")
        if len(keys) > 1:
            axes.legend(fontsize=7)
    figure.savefig(path, dpi=110)


def _head(facts: Mapping[str, Any]) -> str:
    recipe = facts["recipe"]
    return (
        f"# {facts['name']}\n\nThe image tower of {facts['arch']} ({facts['weights']}), fine-tuned against attacks of "
        f"{recipe['eps_255']:g}/255 (l-inf): {facts['about']}. Trained with robust-vlm-bench; method of Schlarmann et "
        "al. 2024, [arXiv 2402.12336](https://arxiv.org/abs/2402.12336). The text tower is the original's."
    )


def _recipe(facts: Mapping[str, Any]) -> str:
    recipe, schedule = facts["recipe"], facts["recipe"]["schedule"]
    lines = [
        f"- {schedule['steps']} updates of {schedule['batch']} images; AdamW, learning rate "
        f"{schedule['learning_rate']:g} (warm-up of {schedule['warmup']}, half cosine to 0), weight decay "
        f"{schedule['weight_decay']:g}, betas {schedule['betas']}",
        f"- inner attack: {recipe['attack']}, {recipe['inner_steps']} steps"
        + (f" of {recipe['inner_step_255']:g}/255" if recipe["attack"] == "pgd" else "")
        + (f"; radius grows over the first {recipe['ramp']:.0%} of the run" if recipe["ramp"] else ""),
        f"- weight of the clean loss {recipe['clean_weight']:g}; seed {recipe['seed']}; {facts['precision']}; "
        f"{facts['processes']} process(es) on {facts['device']}",
        f"- code {facts['code']['commit']}{' (changed)' if facts['code']['dirty'] else ''}; "
        + ", ".join(f"{for_markdown(name)} {number}" for name, number in facts["packages"].items()),
    ]
    lines += [f"- reproduces a flaw of the published code, {flaw}: {FLAWS[flaw]}" for flaw in recipe["flaws"]]
    return "## Recipe\n\n" + "\n".join(lines)


def _data(facts: Mapping[str, Any]) -> str:
    return (
        f"## Data\n\n{facts['data']}: {facts['fingerprint']}; {facts['held_out']} images held out. "
        f"{facts['skipped']} images could not be read and were skipped (`skipped.jsonl` names them)."
    )


def _curves(rows: Sequence[Mapping[str, float]]) -> str:
    """The picture, and the last evaluation."""
    text = f"## Training curves\n\n![Loss, cosines and learning rate over the updates]({CURVES})"
    last = next((row for row in reversed(rows) if "eval_cosine_clean" in row), None)
    if last is None:
        return text
    kinds = ("clean", "attacked")
    table = ["| held out, after update " + f"{last['step'] + 1:g} | clean | APGD |", "| --- | --- | --- |"]
    for key, label in (
        ("cosine", "cosine to the original"),
        ("distance", "squared distance"),
        ("accuracy", "accuracy"),
    ):
        if f"eval_{key}_clean" in last:
            table.append(f"| {label} | " + " | ".join(f"{last[f'eval_{key}_{kind}']:.4g}" for kind in kinds) + " |")
    return text + "\n\n" + "\n".join(table)


def _none_yet(directory: Path) -> str:
    return (
        f"## Scores\n\nNone yet. `bench run --encoder {directory} --task zeroshot`, then "
        f"`bench train card {directory}` puts them here."
    )


def scores_table(runs: Sequence[Run]) -> str:
    """The scores of recorded runs on a trained encoder."""
    lines = ["| task | dataset | eps | score | 95 % interval | n |", "| --- | --- | --- | --- | --- | --- |"]
    whole = [run for run in runs if not run.header.partial]
    for m in [*measured(runs), *averaged(whole, SUITE_FACTS)]:
        e, partial = m.estimate, m.header.partial
        note = f" (partial: {partial})" if partial else ""
        lines.append(
            f"| {for_markdown(m.header.task)} | {for_markdown(m.dataset)} | {eps_label(m.radius, m.header.norm)} | "
            f"{e.value:.1f}{'!' if m.doubts else ''} | {e.low:.1f} to {e.high:.1f} | {e.n}{note} |"
        )
    return "## Scores\n\n" + "\n".join(lines)


def runs_of(digest: str, results: Path) -> list[Run]:
    """Recorded runs whose encoder has these weights."""
    found = []
    for path in find_runs(results) if results.is_dir() else []:
        try:
            run = load_run(path)
        except RecordsError:
            continue
        if run.header.weights.get("encoder") == digest:
            found.append(run)
    return found


def _use(directory: Path) -> str:
    return (
        "## Use\n\n"
        f"    bench run --encoder {directory} --task all\n\n"
        "`open_clip.create_model('local-dir:' + this folder)` loads the whole CLIP, `visual.pt` is the image tower's "
        "state dict, and `clip_vision_model/` (ViTs) loads with `transformers.CLIPVisionModel.from_pretrained`."
    )
