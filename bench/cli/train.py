"""``bench train``: make a robust encoder."""

from pathlib import Path

import click

from bench.errors import UsageError


@click.command()
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
