"""``bench list``: what there is. A plugin that is broken is named, and the rest is listed."""

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

import click

from attacks.presets import AttackStep, Preset
from bench.cli.say import say
from bench.config import load_suite, preset, suite_names
from bench.errors import UsageError


def _json_option(command: Callable[..., None]) -> Callable[..., None]:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


@click.group(name="list")
def list_group() -> None:
    """Show what there is, by kind; plugins of other packages among them."""


def _print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        say(json.dumps(rows, indent=1))
        return
    columns = list(rows[0]) if rows else []
    widths = {c: max(len(c), *(len(str(r[c])) for r in rows)) for c in columns}
    say("  ".join(c.ljust(widths[c]) for c in columns).rstrip())
    for row in rows:
        say("  ".join(str(row[c]).ljust(widths[c]) for c in columns).rstrip())


@list_group.command(name="encoders")
@click.option("--suite", default="mini", show_default=True)
@_json_option
def list_encoders(suite: str, as_json: bool) -> None:
    """Encoders of a suite: how they were trained, whether they are on this machine, the licence.

    "published" is the publisher's zero-shot accuracy over the 13 sets, clean and by radius: what a run should come
    near. Looks at this machine only (the Hugging Face cache that HF_HOME names, and BENCH_WEIGHTS); --json tells all
    that the catalogue knows.

    \b
    Examples:
      bench list encoders --suite paper
      bench list encoders --suite paper --json
    """  # noqa: D301
    from bench import registry
    from bench.models.encoders import catalogue

    names = {target: alias for alias, target in catalogue.aliases().items()}
    found = catalogue.rows(load_suite(suite).encoders).values()
    rows = [_encoder_facts(row, names.get(row.name, "")) for row in found]
    for name in registry.plugins("bench.encoders"):
        plugin = catalogue.EncoderRow(name, licence="", about=_plugin("bench.encoders", name))
        rows.append({**_encoder_facts(plugin, ""), "on disk": "plugin"})
    if not as_json:
        columns = ("name", "alias", "architecture", "training", "published", "on disk", "licence", "about")
        rows = [{**row, "published": _anchor(row["zero_shot"])} for row in rows]
        rows = [{column: _cell(row[column]) for column in columns} for row in rows]
        rows = [{**row, "on disk": "no" if row["on disk"] == "-" else row["on disk"]} for row in rows]
    _print_rows(rows, as_json)


def _encoder_facts(row: Any, alias: str) -> dict[str, Any]:
    """What the catalogue knows of an encoder, and where it lies on this machine (None: nowhere)."""
    from dataclasses import asdict

    from bench.models.encoders.hub import on_disk

    path = on_disk(row)
    return {**asdict(row), "alias": alias, "on disk": str(path) if path else None}


def _anchor(accuracy: Mapping[str, float]) -> str | None:
    """Published accuracies as "67.0, 2/255: 43.1, 4/255: 20.5"."""
    return ", ".join(f"{v:.1f}" if eps == "0" else f"{eps}/255: {v:.1f}" for eps, v in accuracy.items()) or None


def _cell(value: Any) -> str:
    """A fact as a word or two; a training as "FARE linf 4/255"."""
    if isinstance(value, dict):
        eps = f"{value['eps_255']:g}/255" if "eps_255" in value else ""
        return " ".join(word for word in (value.get("method", ""), value.get("norm", ""), eps) if word)
    if value is None:
        return "-"
    return "yes" if str(value).startswith("/") else str(value)


@list_group.command(name="tasks")
@_json_option
def list_tasks(as_json: bool) -> None:
    """Tasks, with what they measure."""
    from bench import registry

    about = {
        "zeroshot": "zero-shot classification; accuracy",
        "captioning": "image captioning; CIDEr",
        "vqa": "visual question answering; official VQA accuracy",
        "pope": "hallucination: is there such an object; accuracy",
        "scienceqa": "reasoning: multiple choice about an image; accuracy",
        "stealth": "targeted attacks: the model is made to say a given text; attack success rate",
        "keywords": "is an image taken for its target? share of the target's keywords that are said",
        "target-text": "the same by the similarity to a text about the target",
        "target-caption": "the same by the similarity to the model's own caption of the target",
    }
    group = "bench.tasks"
    _print_rows([{"name": n, "about": about.get(n) or _plugin(group, n)} for n in registry.names(group)], as_json)


@list_group.command(name="judges")
@_json_option
def list_judges(as_json: bool) -> None:
    """Judges, for --judge: what compares an answer with what was wanted."""
    from bench import registry

    about = {
        "words": "share of keywords whose words all occur in the answer; capitals and plurals do not matter",
        "text": "mean cosine of text embeddings over the encoders of text?encoders=A,B (default clip)",
    }
    group = "bench.judges"
    _print_rows([{"name": n, "about": about.get(n) or _plugin(group, n)} for n in registry.names(group)], as_json)


@list_group.command(name="attacks")
@_json_option
def list_attacks(as_json: bool) -> None:
    """Attack presets with their steps; --json tells all of each step: goal, start, step size, precision."""
    from dataclasses import asdict

    from attacks.presets import PRESETS
    from bench import registry

    rows = []
    for name in [*PRESETS, *registry.plugins("bench.attacks")]:
        try:
            found = preset(name)
        except UsageError as error:
            found = Preset(f"broken: {error}", ())
        steps = [asdict(step) for step in found.steps] if as_json else _steps(found.steps)
        rows.append({"name": name, "steps": steps, "about": found.description})
    _print_rows(rows, as_json)


def _steps(steps: Sequence[AttackStep]) -> str:
    """Steps in order, those in a row that differ in their names only as one: "apgd-t-1..9 (apgd 100)"."""
    alike = groupby(steps, lambda s: (s.name.rstrip("0123456789"), s.kind, s.steps))
    words = []
    for (stem, kind, count), group in alike:
        names = [step.name for step in group]
        span = names[0] if len(names) == 1 else f"{names[0]}..{names[-1].removeprefix(stem)}"
        words.append(f"{span} ({kind} {count})")
    return ", ".join(words)


@list_group.command(name="suites")
@_json_option
def list_suites(as_json: bool) -> None:
    """Suites."""
    _print_rows([{"name": n, "about": load_suite(n).about} for n in suite_names()], as_json)


@list_group.command(name="datasets")
@click.option("--suite", default="mini", show_default=True)
@click.option("--formats", is_flag=True, help="Published tables whose columns are known, in the place of a suite's.")
@_json_option
def list_datasets(suite: str, formats: bool, as_json: bool) -> None:
    """Datasets of a suite: the task that asks them, samples, file format. Some are run only when they are named.

    With --formats: the evaluation sets whose columns are known, as lmms-eval and VLMEvalKit publish them, and how
    --dataset names one. docs/data.md has a command for each.

    \b
    Examples:
      bench list datasets --suite paper
      bench list datasets --formats
    """  # noqa: D301
    if formats:
        return _print_rows(_column_maps(as_json), as_json)
    chosen = load_suite(suite)
    rows = [
        {
            "name": d,
            "task": task,
            "samples": chosen.datasets.get(d, {}).get("samples", plan.samples),
            "format": chosen.datasets.get(d, {}).get("format", ""),
            "by default": "no" if d in plan.optional else "yes",
            "about": chosen.datasets.get(d, {}).get("about", ""),
        }
        for task, plan in chosen.tasks.items()
        for d in (*plan.datasets, *plan.optional)
    ]
    return _print_rows(rows, as_json)


def _column_maps(as_json: bool) -> list[dict[str, Any]]:
    """All that is known of each; in words, how --dataset names one."""
    from dataclasses import asdict

    from bench.data.column_maps import column_maps

    found = column_maps().values()
    if as_json:
        return [asdict(one) for one in found]
    return [{"name": one.name, "task": one.task, "dataset": one.spec, "about": one.about} for one in found]


@list_group.command(name="victims")
@_json_option
def list_victims(as_json: bool) -> None:
    """Families of vision-language models (and endpoints) with their settings; then victims that have a name."""
    from bench.models.victims.catalogue import rows as named
    from bench.models.victims.load import families

    rows = []
    for name, found in families():
        settings: dict[str, str] = {}
        if isinstance(found, UsageError):
            about = f"broken: {found}"
        else:
            settings, about = {key: setting.about for key, setting in found.settings.items()}, found.about
        rows.append({"name": name, "settings": settings if as_json else ", ".join(settings), "about": about})
    none: dict[str, str] | str = {} if as_json else ""
    rows += [{"name": n, "settings": none, "about": f"{r.about}: {r.place}"} for n, r in named().items()]
    _print_rows(rows, as_json)


_REGISTERED = {
    "readers": ("bench.readers", "Formats that datasets are read from."),
    "defences": ("bench.defences", "Defences that --defence puts around a victim, with their options."),
    "kinds": ("bench.attack_kinds", "Kinds of attack, which the steps of attack presets name."),
    "objectives": ("bench.objectives", "What encoders can be trained for."),
    "layouts": ("bench.layouts", "Layouts of tables."),
    "engines": ("bench.engines", "Where runs can be carried out."),
    "sinks": ("bench.sinks", "Where scores and loss curves can be sent (--log-to)."),
}


def _add_registered(name: str, group: str, about: str) -> None:
    @list_group.command(name=name, help=about)
    @_json_option
    def listed(as_json: bool) -> None:
        from bench import registry

        _print_rows([{"name": n, "about": _words_of(group, n)} for n in registry.names(group)], as_json)


for _name, (_group, _about) in _REGISTERED.items():
    _add_registered(_name, _group, _about)


def _plugin(group: str, name: str) -> str:
    """Where a plugin's thing comes from, once it is seen that it can be imported."""
    from bench import registry

    try:
        registry.resolve(group, name)
    except UsageError as error:
        return f"broken: {error}"
    return f"plugin {registry.plugins(group)[name].value}"


def _words_of(group: str, name: str) -> str:
    """What a registered thing says of itself: ``about``, or the first line of its docstring."""
    from bench import registry

    try:
        thing = registry.resolve(group, name)
    except UsageError as error:
        return f"broken: {error}"
    try:
        about = getattr(thing, "about", None) or thing.__doc__ or ""
        return str(about).strip().partition("\n")[0]
    except Exception as error:  # whatever another package raises
        return f"broken: {registry.broken(group, name, f'it cannot say what it is: {error}')}"
