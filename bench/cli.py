"""The command line: commands only; each calls the library function that a notebook would call."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from bench.config import DEFAULT_OUTPUT, load_suite, preset, suite_names
from bench.errors import UsageError

DONE, CHECK_FAILED, USAGE = 0, 1, 2


class _Commands(click.Group):
    """Shows a user's mistake as one line, with exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        from bench.records import RecordsError

        try:
            return super().invoke(ctx)
        except (UsageError, RecordsError) as error:
            click.echo(f"bench: {error}", err=True)
            ctx.exit(USAGE)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="robust-vlm-bench")
def main() -> None:
    """Can this vision-language model be fooled? Robustness benchmarks for CLIP encoders.

    \b
    Examples:
      bench run --encoder fare --task vqa
      bench run --encoder clip,tecoa,fare --task all
      bench list encoders
      bench train --suite mini fare4
    Exit codes: 0 done, 1 a check failed, 2 usage.
    """  # noqa: D301 - \b is click's mark for a paragraph to leave alone


@main.command()
@click.option("--encoder", required=True, help="Name, alias or checkpoint path; several comma-separated.")
@click.option("--task", required=True, help="Task name; several comma-separated; 'all' for every task of the suite.")
@click.option("--suite", default="mini", show_default=True, help="Which models, data and sample counts.")
@click.option("--eps", default=None, help="Radii in 1/255, e.g. 2,4 or 4/255. Default: the suite's.")
@click.option("--attack", default=None, help="Attack preset, or 'none'. Default: the suite's choice for the task.")
@click.option("--surrogate", default=None, help="Make the adversarial images on this encoder instead (transfer).")
@click.option("--limit", type=int, default=None, help="Only the first N samples; marks the run as partial.")
@click.option("--batch-size", default="auto", show_default=True, help="Samples at once; never changes a result.")
@click.option("--seed", type=int, default=None, help="Of all random starts. Default: the suite's.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--output", type=click.Path(path_type=Path), default=DEFAULT_OUTPUT, show_default=True)
@click.option("--data-root", type=click.Path(path_type=Path), default=None, help="Read data set files from here.")
@click.option("--save-adversarial", is_flag=True, help="Keep the worst image of each sample and radius.")
@click.option("--jobs", type=int, default=None, help="Runs at once. Default: one a core on the CPU, else 1.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array on stdout and nothing else.")
@click.option("--quiet", is_flag=True, help="No progress bars.")
def run(as_json: bool, quiet: bool, batch_size: str, **options: Any) -> None:
    """Evaluate encoders on tasks, clean and under attack.

    Runs are resumable: the same command goes on where it stopped.

    \b
    Examples:
      bench run --encoder fare --task vqa
      bench run --encoder clip,fare --task zeroshot --eps 4 --attack autoattack
      bench run --encoder fare --task vqa --surrogate clip
      bench run --encoder path/to/visual.safetensors --task all --json
    """  # noqa: D301
    from bench import api

    options["batch_size"] = _batch_size(batch_size)
    result = api.run(**options, progress=not quiet)
    if as_json:
        click.echo(json.dumps(result.rows(), indent=1))
        return
    _show(result.runs)
    click.echo("\nrecords:")
    for one in result.runs:
        click.echo(f"  {one.directory}")


def _batch_size(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--batch-size takes 'auto' or a number from 1, got {text!r}")
    return int(text)


def _show(runs: Any, encoders: list[str] | None = None) -> None:
    from bench import tables

    rows = [*tables.summary(runs), *tables.averages(runs)]
    click.echo(tables.to_text(tables.table(rows, encoders or list(dict.fromkeys(r.header.encoder for r in runs)))))


def _json_option(command: Callable[..., None]) -> Callable[..., None]:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


@main.group(name="list")
def list_group() -> None:
    """Show what there is: encoders, tasks, attacks, suites, datasets."""


def _print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    columns = list(rows[0]) if rows else []
    widths = {c: max(len(c), *(len(str(r[c])) for r in rows)) for c in columns}
    click.echo("  ".join(c.ljust(widths[c]) for c in columns).rstrip())
    for row in rows:
        click.echo("  ".join(str(row[c]).ljust(widths[c]) for c in columns).rstrip())


@list_group.command(name="encoders")
@click.option("--suite", default="mini", show_default=True)
@_json_option
def list_encoders(suite: str, as_json: bool) -> None:
    """Encoders of a suite, with their aliases."""
    from bench import registry
    from bench.models import catalogue

    names = {target: alias for alias, target in catalogue.aliases().items()}
    rows = [
        {"name": row.name, "alias": names.get(row.name, ""), "licence": row.licence, "about": row.about}
        for row in catalogue.rows(load_suite(suite).encoders).values()
    ]
    for name, point in registry.plugins("bench.encoders").items():
        rows.append({"name": name, "alias": "", "licence": "", "about": f"plugin {point.value}"})
    _print_rows(rows, as_json)


@list_group.command(name="tasks")
@_json_option
def list_tasks(as_json: bool) -> None:
    """Tasks, with what they measure."""
    from bench import registry

    about = {
        "zeroshot": "zero-shot classification; accuracy",
        "captioning": "image captioning; CIDEr",
        "vqa": "visual question answering; official VQA accuracy",
        "stealth": "targeted attacks: the model is made to say a given text; attack success rate",
    }
    _print_rows([{"name": n, "about": about.get(n, "plugin")} for n in registry.names("bench.tasks")], as_json)


@list_group.command(name="attacks")
@_json_option
def list_attacks(as_json: bool) -> None:
    """Attack presets with their steps."""
    from attacks.presets import PRESETS
    from bench import registry

    rows = []
    for name in [*PRESETS, *registry.plugins("bench.attacks")]:
        found = preset(name)
        steps = ", ".join(f"{s.name} ({s.kind} {s.steps})" for s in found.steps)
        rows.append({"name": name, "about": found.description, "steps": steps})
    _print_rows(rows, as_json)


@list_group.command(name="suites")
@_json_option
def list_suites(as_json: bool) -> None:
    """Suites."""
    _print_rows([{"name": n, "about": load_suite(n).about} for n in suite_names()], as_json)


@list_group.command(name="datasets")
@click.option("--suite", default="mini", show_default=True)
@_json_option
def list_datasets(suite: str, as_json: bool) -> None:
    """Data sets of a suite: the task that asks them, samples, file format."""
    chosen = load_suite(suite)
    rows = [
        {"name": d, "task": task, "samples": plan.samples, "format": chosen.datasets.get(d, {}).get("format", "")}
        for task, plan in chosen.tasks.items()
        for d in plan.datasets
    ]
    _print_rows(rows, as_json)


@main.group()
def data() -> None:
    """Data set files."""


@data.command()
@click.argument("world", type=click.Choice(["mini"]))
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--size", type=int, default=None, help="Samples a data set. Default: all 1000.")
def export(world: str, directory: Path, size: int | None) -> None:
    """Write the embedded data sets as files in the official formats.

    \b
    Example:
      bench data export mini /tmp/mini && bench run --encoder fare --task vqa --data-root /tmp/mini
    """  # noqa: D301
    from bench.data.export import export_mini

    for path in export_mini(directory, size):
        click.echo(path)


@main.command()
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path))
@click.option("--format", "style", type=click.Choice(["text", "markdown", "csv", "json"]), default="text")
@click.option("--write", "document", type=click.Path(path_type=Path), help="Regenerate the blocks of this document.")
def table(runs: tuple[Path, ...], style: str, document: Path | None) -> None:
    """Tables of finished runs (default: those under results/runs).

    \b
    Examples:
      bench table
      bench table results/mini --format markdown
      bench table results/mini --write BENCHMARKS.md
    """  # noqa: D301
    from bench import committed, tables

    found = committed.load_runs(runs or [DEFAULT_OUTPUT])
    if document is not None:
        committed.write(document, found)
        return
    try:
        frame = tables.table([*tables.summary(found), *tables.averages(found)], committed.ENCODERS)
    except ValueError as error:
        raise UsageError(str(error)) from error
    render = {"text": tables.to_text, "markdown": tables.to_markdown, "csv": tables.to_csv, "json": tables.to_json}
    click.echo(render[style](frame), nl=False)


@main.command()
@click.option("--baseline", type=click.Path(path_type=Path), default=None, help="Default: results/mini.")
@click.option("--document", type=click.Path(path_type=Path), default=None, help="Default: BENCHMARKS.md.")
@click.option("--update", type=click.Path(path_type=Path), help="Take the runs under here as the new baseline.")
@click.option("--rerun", type=int, default=40, show_default=True, help="Samples to run again of each guarded run.")
@click.option("--jobs", type=int, default=None, help="Runs at once. Default: one a core on the CPU, else 1.")
def check(baseline: Path | None, document: Path | None, update: Path | None, rerun: int, jobs: int | None) -> None:
    """Does the code still give the committed numbers? Exits with 1 when it does not.

    Compares the document's tables with the committed records, then runs a part of the guarded runs again and compares
    them sample by sample: only a significant drop fails.

    \b
    Example:
      bench check --rerun 100
      bench check --update results/runs/mini-full --rerun 0
    """  # noqa: D301
    from bench import committed

    baseline, document = baseline or committed.BASELINE, document or committed.DOCUMENT
    if update is not None:
        committed.update(baseline, [update])
        committed.write(document, committed.load_runs([baseline]))
    found = committed.load_runs([baseline])
    failed = False
    for name in committed.stale_blocks(document, found):
        failed = True
        click.echo(f"stale: block {name!r}; run `bench table results/mini --write BENCHMARKS.md` and review the change")
    if rerun:
        from bench.gate import rerun_guarded

        for finding in rerun_guarded(found, rerun, jobs):
            failed = failed or not finding.ok
            click.echo(f"{finding.verdict:>14}  {finding.words}")
    click.echo("check failed" if failed else "check passed")
    sys.exit(CHECK_FAILED if failed else DONE)


@main.command()
@click.argument("model")
@click.option("--suite", default="mini", show_default=True)
@click.option("--work", type=click.Path(path_type=Path), default=None, help="Checkpoints. Default: runs/train/MODEL.")
@click.option("--output", type=click.Path(path_type=Path), default=None, help="Default: the work folder's export/.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--threads", type=int, default=1, show_default=True, help="CPU threads; shipped models: 1 (clip: 2).")
def train(model: str, suite: str, work: Path | None, output: Path | None, seed: int, threads: int) -> None:
    """Train a model of a suite by its committed recipe; resumable.

    \b
    Example:
      bench train --suite mini fare4 && bench run --encoder runs/train/fare4/export/visual.safetensors --task vqa
    """  # noqa: D301
    if suite != "mini":
        raise UsageError(f"suite {suite!r} has no training recipes; use --suite mini")
    import torch

    from bench.mini.recipes import train_model

    torch.set_num_threads(threads)
    work = work or Path("runs/train") / model
    click.echo(train_model(model, work, output or work / "export", seed=seed))


if __name__ == "__main__":
    sys.exit(main())
