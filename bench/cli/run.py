"""``bench run``: evaluate encoders on tasks, clean and under attack."""

import json
from typing import Any

import click

from bench.cli.asking import asking
from bench.cli.completion import attacks, datasets, encoders, suites, tasks
from bench.cli.root import CHECK_FAILED
from bench.cli.say import say, say_line
from bench.config.request import about, flag
from bench.config.suite import CHOICES
from bench.errors import UsageError

ABOUT = about()


@click.command()
@click.option("--encoder", help=ABOUT["encoder"], shell_complete=encoders)
@click.option("--task", help=ABOUT["task"], shell_complete=tasks)
@click.option("--all", "everything", is_flag=True, help="Every run behind the suite's tables, transfers included.")
@click.option("--suite", help=ABOUT["suite"], shell_complete=suites)
@click.option("--dataset", help=ABOUT["dataset"], shell_complete=datasets)
@click.option("--eps", help=ABOUT["eps"])
@click.option("--norm", help=ABOUT["norm"])
@click.option("--attack", help=ABOUT["attack"], shell_complete=attacks)
@click.option("--surrogate", help=ABOUT["surrogate"], shell_complete=encoders)
@click.option("--ensemble", metavar="mean|WEIGHTS", help=ABOUT["ensemble"])
@click.option("--surrogate-vlm", help=ABOUT["surrogate_vlm"])
@click.option("--limit", type=int, help=ABOUT["limit"])
@click.option("--batch-size", metavar="N|auto", help=ABOUT["batch_size"])
@click.option("--seed", type=int, help=ABOUT["seed"])
@click.option("--device", help=ABOUT["device"])
@click.option("--output", type=click.Path(), help=ABOUT["output"])
@click.option("--data-root", type=click.Path(), help=ABOUT["data_root"])
@click.option("--save-adversarial", is_flag=True, help=ABOUT["save_adversarial"])
@click.option("--protocol", help=ABOUT["protocol"])
@click.option("--radii-order", help=ABOUT["radii_order"])
@click.option("--precision", help=ABOUT["precision"])
@click.option("--compile", "compiled", is_flag=True, help=ABOUT["compiled"])
@click.option("--tower", help=ABOUT["tower"])
@click.option("--arch", help=ABOUT["arch"])
@click.option("--defence", help=ABOUT["defence"])
@click.option("--judge", help=ABOUT["judge"])
@click.option("--vlm", "--victim", "vlm", help=ABOUT["vlm"])
@click.option("--shots", type=int, help=ABOUT["shots"])
@click.option("--image-size", type=int, help=ABOUT["image_size"])
@asking
@click.option("--force", is_flag=True, help=ABOUT["force"])
@click.option("--jobs", type=int, help=ABOUT["jobs"])
@click.option("--shards", type=int, metavar="N", help=ABOUT["shards"])
@click.option("--on", help=ABOUT["on"])
@click.option("--log-to", metavar="SINK", help=ABOUT["log_to"])
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array on stdout and nothing else.")
@click.option("--quiet", is_flag=True, help="No progress bars.")
def run(as_json: bool, quiet: bool, everything: bool, **options: Any) -> None:
    """Evaluate encoders on tasks, clean and under attack.

    Runs are resumable: the same command goes on where it stopped. Exit code 1: some samples have no score (the same
    command tries them again), or a sanity check failed, so that a number may mean nothing.

    \b
    Examples:
      bench run --encoder fare --task vqa
      bench run --encoder clip,fare --task zeroshot --eps 4 --attack autoattack
      bench run --encoder fare --task vqa --surrogate clip
      bench run --encoder clip,fare --surrogate clip,fare --task vqa --attack transfer
      bench run --encoder fare --task vqa --surrogate clip,tecoa2 --ensemble mean --attack transfer
      bench run --encoder fare --task vqa --vlm mini-openflamingo --shots 4
      bench run --encoder fare --task vqa --vlm mini-llava --surrogate-vlm mini-openflamingo
      bench run --encoder path/to/visual.safetensors --task all --json
      bench run --suite mini-full --all
      bench run --suite my.toml --encoder fare --task vqa
      bench run --suite paper --all --on slurm?partition=gpu --shards 4
    \b
    Data of your own, relative to --data-root if that is given, or a .toml file with one row as in a suite:
      bench run --encoder fare --task vqa --dataset vqa:FOLDER
      bench run --encoder fare --task captioning --dataset karpathy:FOLDER
      bench run --encoder fare --task zeroshot --dataset imagefolder:FOLDER,webdataset:FOLDER
      bench run --encoder fare --task vqa --dataset "parquet:FILE?question=COLUMN&answers=COLUMN"
      bench run --encoder fare --task vqa --dataset "hf:OWNER/NAME?split=validation"
    """  # noqa: D301
    from bench import api

    chosen = [name for name in CHOICES if options[name] is not None]
    if everything and chosen:
        raise UsageError(f"--all runs what the suite's tables hold: leave out {flag(chosen[0])}")
    result = (api.run_all if everything else api.run)(**options, progress=not quiet)
    warn(result.runs)
    if as_json:
        say(json.dumps(result.rows(), indent=1))
    else:
        show(result.runs)
        say("\nrecords:")
        for one in result.runs:
            say_line(f"  {one.directory}")
    if any(one.header.status != "complete" or one.header.doubts for one in result.runs):
        click.get_current_context().exit(CHECK_FAILED)


def show(runs: Any) -> None:
    """The flat table, and the transfers between encoders and between models where there are any."""
    from bench.config.facts import SUITE_FACTS
    from bench.tables import layouts, render

    problems: list[str] = []
    say("\n".join(map(render.text, layouts.tables(runs, SUITE_FACTS, ("flat", "transfer", "models"), problems))))
    for problem in problems:
        say_line(f"bench: {problem}", err=True)


def warn(runs: Any) -> None:
    """Say on stderr which sanity checks failed: such a score may mean nothing."""
    for run in runs:
        for check in run.header.checks:
            if not check["ok"]:
                say_line(f"check failed: {check['name']} in {run.directory}: {check['detail']}", err=True)
