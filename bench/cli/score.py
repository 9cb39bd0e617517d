"""``bench score``: score images that an attack made elsewhere."""

import json
from typing import TYPE_CHECKING, Any

import click

from bench.cli.asking import asking
from bench.cli.completion import datasets, encoders, suites, tasks
from bench.cli.root import CHECK_FAILED
from bench.cli.run import ABOUT, show, warn
from bench.cli.say import say, say_line

if TYPE_CHECKING:
    from bench.records import Run


@click.command()
@click.argument("images", type=click.Path())
@click.option("--clean", type=click.Path(), help=ABOUT["clean"])
@click.option("--name", "attack", help="What the attack is called in tables. Default: brought.")
@click.option("--encoder", help=ABOUT["encoder"], shell_complete=encoders)
@click.option("--vlm", "--victim", "vlm", help=ABOUT["vlm"])
@click.option("--task", required=True, help=ABOUT["task"], shell_complete=tasks)
@click.option("--dataset", help=ABOUT["dataset"], shell_complete=datasets)
@click.option("--eps", required=True, help="Radius that every image must keep, in 1/255; in plain units for l2.")
@click.option("--norm", help=ABOUT["norm"])
@click.option("--suite", help=ABOUT["suite"], shell_complete=suites)
@click.option("--limit", type=int, help=ABOUT["limit"])
@click.option("--batch-size", metavar="N|auto", help=ABOUT["batch_size"])
@click.option("--device", help=ABOUT["device"])
@click.option("--output", type=click.Path(), help=ABOUT["output"])
@click.option("--data-root", type=click.Path(), help=ABOUT["data_root"])
@click.option("--protocol", help=ABOUT["protocol"])
@click.option("--judge", help=ABOUT["judge"])
@click.option("--tower", help=ABOUT["tower"])
@click.option("--arch", help=ABOUT["arch"])
@asking
@click.option("--force", is_flag=True, help=ABOUT["force"])
@click.option("--log-to", metavar="SINK", help=ABOUT["log_to"])
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array on stdout and nothing else.")
@click.option("--quiet", is_flag=True, help="No progress bars.")
def score(as_json: bool, quiet: bool, **options: Any) -> None:
    """Score the images of any attack, made by any code, clean and adversarial.

    IMAGES is a folder with one file per sample, named after the sample's id: an 8-bit RGB PNG, or a safetensors file
    with one float32 tensor (3, height, width) in [0, 1]. Every image is measured against its clean image before any is
    shown: one outside the threat model, missing, renamed, surplus or of another format is named and refused. It is a
    run like any other: `bench table`, `report`, `compare` and `verify` read it.

    \b
    Examples:
      bench score IMAGES --clean CLEAN --encoder fare --task vqa --eps 4 --name their-attack
      bench score IMAGES --encoder fare --task zeroshot --dataset mini-shape --eps 4
      bench score IMAGES --victim openai:https://api.openai.com/v1#gpt-4o-2024-11-20 --task vqa --eps 16 --repeats 2
    """  # noqa: D301
    from bench import api

    result = api.run(**options, save_adversarial=True, progress=not quiet)
    warn(result.runs)
    if as_json:
        say(json.dumps(result.rows(), indent=1))
    else:
        show(result.runs)
        for run in result.runs:
            _show_change(run)
        say("\nrecords:")
        for run in result.runs:
            say_line(f"  {run.directory}")
    if any(run.header.status != "complete" or run.header.doubts for run in result.runs):
        click.get_current_context().exit(CHECK_FAILED)


def _show_change(run: "Run") -> None:
    """The paired test between the answers to the clean images and to the adversarial ones."""
    from bench.analysis.compare import attacked_against_clean
    from bench.records.worst import eps_label

    for radius in run.header.radii:
        if (change := attacked_against_clean(run, radius)) is not None:
            place = f"{run.header.encoder}, {run.header.dataset}, {eps_label(radius, run.header.norm)}"
            say()
            say_line(f"{place}: adversarial against clean images: {change.in_words()} ({change.test})")
