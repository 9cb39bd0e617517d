"""``bench push``: results to where people keep them."""

from pathlib import Path

import click

from bench.cli.choosing import choosing, chosen
from bench.cli.say import say
from bench.config import DEFAULT_OUTPUT
from bench.config.request import about
from bench.errors import UsageError

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


@push.command()
@click.argument("trained", type=PATH)
@click.option("-o", "--output", required=True, type=PATH, help="The folder to make.")
@click.option("--results", type=PATH, default=DEFAULT_OUTPUT, show_default=True, help="Runs for the model-index.")
@click.option("--licence", help="Of the weights, as the hub calls it: mit, apache-2.0, ...")
@click.option("--repo", metavar="OWNER/NAME", help="On the hub.")
@click.option("--upload", is_flag=True, help="Upload the folder to --repo, with the token that huggingface_hub finds.")
@click.option("--public", is_flag=True, help="Everybody may see a repository that is made.")
def hub(
    trained: Path, output: Path, results: Path, licence: str | None, repo: str | None, upload: bool, public: bool
) -> None:
    """Make a folder for the Hugging Face hub of a trained encoder: weights, and a card with its robust scores.

    TRAINED is the folder of a finished `bench train OBJECTIVE`. The card's model-index has every score of whole runs
    on these very weights. Nothing is uploaded without --upload.

    \b
    Examples:
      bench push hub runs/fare4 -o hub/fare4 --licence mit
      bench push hub runs/fare4 -o hub/fare4 --licence mit --repo me/fare4 --upload
    """  # noqa: D301
    from bench.train import hub as library

    if upload and repo is None:
        raise UsageError("--upload needs --repo OWNER/NAME")
    say(library.make_folder(trained, output, results, repo=repo, licence=licence))
    if upload and repo is not None:
        say(library.upload(output, repo, private=not public))
