"""``bench run``: evaluate encoders on tasks, clean and under attack."""

import json
from pathlib import Path
from typing import Any

import click

from bench.cli.root import CHECK_FAILED
from bench.config import DEFAULT_OUTPUT
from bench.errors import UsageError

CHOICES = ("encoder", "task", "dataset", "surrogate", "attack", "eps")  # of runs: what --all makes itself


@click.command()
@click.option("--encoder", default=None, help="Name, alias or checkpoint path; several comma-separated.")
@click.option("--task", default=None, help="Task name; several comma-separated; 'all' for every task of the suite.")
@click.option("--all", "everything", is_flag=True, help="Every run behind the suite's tables, transfers included.")
@click.option("--suite", default="mini", show_default=True, help="Which models, data and sample counts.")
@click.option("--dataset", default=None, help="Only these, comma-separated; or your own: vqa:FOLDER and others below.")
@click.option("--eps", default=None, help="Radii in 1/255, e.g. 2,4 or 4/255. Default: the suite's.")
@click.option("--norm", default=None, help="linf, or l2 with --eps in plain units, e.g. 0.5. Default: the suite's.")
@click.option("--attack", default=None, help="Attack preset, or 'none'. Default: the suite's choice for the task.")
@click.option("--surrogate", default=None, help="Make the images on this encoder instead; several give a matrix.")
@click.option("--limit", type=int, default=None, help="Only the first N samples; marks the run as partial.")
@click.option("--batch-size", default="auto", show_default=True, help="Samples at once; never changes a result.")
@click.option("--seed", type=int, default=None, help="Of all random starts. Default: the suite's.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--output", type=click.Path(path_type=Path), default=DEFAULT_OUTPUT, show_default=True)
@click.option("--data-root", type=click.Path(path_type=Path), default=None, help="Read dataset files from here.")
@click.option("--save-adversarial", is_flag=True, help="Keep the worst image of each sample and radius.")
@click.option("--protocol", default="strict", show_default=True, help="strict, or paper: its released code's choices.")
@click.option("--precision", default="float32", show_default=True, help="Of the search: float32, bf16 or fp16.")
@click.option("--compile", "compiled", is_flag=True, help="torch.compile the models' blocks: for long runs on a GPU.")
@click.option("--tower", default="encoder", show_default=True, help="native: keep the vision-language model's own.")
@click.option("--arch", default=None, help="What an --encoder path holds: ViT-L-14-quickgelu; or ViT-B-32,TAG.")
@click.option("--vlm", default=None, help="Folder or hub id of the vision-language model. Default: the suite's.")
@click.option("--force", is_flag=True, help="Begin anew beside a run that cannot be resumed.")
@click.option("--jobs", type=int, default=None, help="Runs at once. Default: one a core on the CPU, else 1.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array on stdout and nothing else.")
@click.option("--quiet", is_flag=True, help="No progress bars.")
def run(as_json: bool, quiet: bool, batch_size: str, everything: bool, **options: Any) -> None:
    """Evaluate encoders on tasks, clean and under attack.

    Runs are resumable: the same command goes on where it stopped. Exit code 1: some samples have no score.

    \b
    Examples:
      bench run --encoder fare --task vqa
      bench run --encoder clip,fare --task zeroshot --eps 4 --attack autoattack
      bench run --encoder fare --task vqa --surrogate clip
      bench run --encoder clip,fare --surrogate clip,fare --task vqa --attack transfer
      bench run --encoder path/to/visual.safetensors --task all --json
      bench run --suite mini-full --all
    \b
    Data of your own, relative to --data-root if that is given, or a .toml file with one row as in a suite:
      bench run --encoder fare --task vqa --dataset vqa:FOLDER
      bench run --encoder fare --task captioning --dataset karpathy:FOLDER
      bench run --encoder fare --task zeroshot --dataset imagefolder:FOLDER,webdataset:FOLDER
      bench run --encoder fare --task vqa --dataset "parquet:FILE?question=COLUMN&answers=COLUMN"
      bench run --encoder fare --task vqa --dataset "hf:OWNER/NAME?split=validation"
    """  # noqa: D301
    from bench import api

    options["batch_size"] = _batch_size(batch_size)
    chosen = [name for name in CHOICES if options[name] is not None]
    if everything and chosen:
        raise UsageError(f"--all runs what the suite's tables hold: leave out --{chosen[0]}")
    if not everything and (missing := [name for name in ("encoder", "task") if options[name] is None]):
        raise UsageError(f"give --{missing[0]}, or --all for every run behind the suite's tables")
    if everything:
        options = {name: value for name, value in options.items() if name not in CHOICES}
    result = (api.run_all if everything else api.run)(**options, progress=not quiet)
    _warn(result.runs)
    if as_json:
        click.echo(json.dumps(result.rows(), indent=1))
    else:
        _show(result.runs)
        click.echo("\nrecords:")
        for one in result.runs:
            click.echo(f"  {one.directory}")
    if any(one.header.status != "complete" for one in result.runs):
        click.get_current_context().exit(CHECK_FAILED)  # samples without a score; the same command tries them again


def _batch_size(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--batch-size takes 'auto' or a number from 1, got {text!r}")
    return int(text)


def _show(runs: Any) -> None:
    """The flat table, and the transfers where there are any."""
    from bench.config.facts import SUITE_FACTS
    from bench.tables import layouts, render

    click.echo("\n".join(map(render.text, layouts.tables(runs, SUITE_FACTS, ("flat", "transfer")))))


def _warn(runs: Any) -> None:
    """Say on stderr which sanity checks failed: such a score may mean nothing."""
    for run in runs:
        for check in run.header.checks:
            if not check["ok"]:
                click.echo(f"check failed: {check['name']} in {run.directory}: {check['detail']}", err=True)
