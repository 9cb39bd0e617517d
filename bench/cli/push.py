"""``bench push``: results to where people keep them."""

from pathlib import Path

import click

from bench.cli.choosing import choosing, chosen
from bench.cli.say import say
from bench.config.request import about

PATH = click.Path(path_type=Path)


@click.group()
def push() -> None:
    """Send finished runs to a sink, or make a folder for the Hugging Face hub."""


@push.command()
@click.argument("runs", nargs=-1, required=True, type=PATH)
@click.option("--log-to", required=True, metavar="SINK", help=about()["log_to"])
@choosing
def runs(
    runs: tuple[Path, ...],
    log_to: str,
    encoder: str | None,
    task: str | None,
    dataset: str | None,
    where: tuple[str, ...],
) -> None:
    """Send the scores of finished runs, as `bench run --log-to` does; a run that was sent before is replaced.

    \b
    Examples:
      bench push runs results/runs --log-to tensorboard:logs
      bench push runs results/mini --task vqa --log-to "mlflow:mlruns?experiment=mini,wandb:mini?mode=offline"
    """  # noqa: D301
    from bench import sinks
    from bench.analysis.sent import send
    from bench.config import Request
    from bench.records import load_runs

    specs = Request.of(log_to=log_to).log_to
    sinks.check(specs)
    found = chosen(load_runs(runs), encoder, task, dataset, where)
    send(found, specs)
    say(f"sent {len(found)} runs to {', '.join(specs)}")
