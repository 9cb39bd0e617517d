"""``bench train``: make a robust encoder."""

import copy
from contextlib import contextmanager
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench import registry
from bench.cli.say import say
from bench.config import DEFAULT_OUTPUT
from bench.errors import UsageError
from bench.train.job import RECIPES, TrainingJob, help_of_fields
from bench.train.recipe import ATTACKS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATH = click.Path(path_type=Path)
HELP = """Fine-tune an image tower with the objective {name}; resumable by the same command.

\b
Examples:
  bench train {name} --arch ViT-L-14 --weights openai --data {data} --eps 4 --output runs/{name}4
  bench train {name} --arch ViT-B-32 --weights laion2b_s34b_b79k --data {data} --eps 2 --output runs/b32 \\
    --steps 2000 --batch 64 --micro-batch 16 --bf16 --compile
  bench train {name} --arch FOLDER --data "hf:OWNER/NAME?split=train&image=image&label=label" --output runs/own
  bench train {name} --recipe paper --arch ViT-L-14 --weights openai --data {data} --output runs/as-published
  torchrun --nproc-per-node 8 -m bench train {name} --arch ViT-L-14 --weights openai --data {data} --output runs/8
"""
DATA = {"tecoa": "imagefolder:/data/imagenet/train"}
_ABOUT = help_of_fields()
_FIELDS = {field.name: field for field in fields(TrainingJob)}


class _Objectives(click.Group):
    """A command for each training objective, those of plugins too, beside its own commands."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*registry.names("bench.objectives"), *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = super().get_command(ctx, cmd_name)
        if own is not None or cmd_name not in registry.names("bench.objectives"):
            return own
        command = copy.copy(_objective)
        command.name, command.help = (
            cmd_name,
            HELP.format(name=cmd_name, data=DATA.get(cmd_name, "folder:/data/images")),
        )
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            error = registry.unknown("training objective", args[0], self.list_commands(ctx))
            raise UsageError(f"{error}; a model of the miniature suite: bench train recipe {args[0]}")
        return super().resolve_command(ctx, args)


@click.group(cls=_Objectives)
@click.option("--suite", hidden=True, expose_value=False)  # as in "bench train --suite mini fare4", which was the form
def train() -> None:
    """Make a robust CLIP encoder.

    \b
    From your own images, with any architecture of open_clip (resumable: run the same command again):
      bench train fare --arch ViT-L-14 --weights openai --data imagefolder:/data/train --eps 4 --output runs/fare4
      torchrun --nproc-per-node 8 -m bench train fare --arch ViT-L-14 ...      on eight devices
      bench run --encoder runs/fare4 --task zeroshot
    Between the original and the trained weights:
      bench train blend --arch ViT-L-14 --weights openai --trained runs/fare4 --share 0.7 --output runs/blend
    A miniature model, by its committed recipe:
      bench train recipe fare4 && bench run --encoder runs/train/fare4/export/visual.safetensors --task vqa
    """  # noqa: D301


def _option(*names: str, kind: Any = str) -> "Callable[[Callable[..., None]], Callable[..., None]]":
    """A click option for a field of `TrainingJob`, with that field's default and help."""
    name = next((name for name in names if not name.startswith("-")), names[0].removeprefix("--").replace("-", "_"))
    default = _FIELDS[name].default
    extra: dict[str, Any] = {"is_flag": True} if kind is bool else {"type": kind, "show_default": True}
    extra |= {"required": True} if default is MISSING else {"default": default}
    if default == ():
        extra["multiple"] = True
    return click.option(*names, help=_ABOUT[name], **extra)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@_option("--arch")
@_option("--weights")
@_option("--data")
@_option("--output", kind=PATH)
@_option("--classnames", kind=PATH)
@_option("--eval-images", kind=int)
@_option("--eval-data")
@_option("--eval-every", kind=int)
@_option("--data-threads", kind=int)
@_option("--score")
@_option("--data-root", kind=PATH)
@_option("--results", kind=PATH)
@_option("--recipe", kind=click.Choice(RECIPES))
@_option("--eps", kind=float)
@_option("--steps", kind=int)
@_option("--batch", kind=int)
@_option("--lr", kind=float)
@_option("--warmup", kind=int)
@_option("--weight-decay", kind=float)
@_option("--attack", kind=click.Choice(ATTACKS))
@_option("--inner-steps", kind=int)
@_option("--inner-step", kind=float)
@_option("--clean-weight", kind=float)
@_option("--ramp", kind=float)
@_option("--seed", kind=int)
@_option("--flaw", "flaws")
@_option("--device")
@_option("--micro-batch", kind=int)
@_option("--bf16", kind=bool)
@_option("--compile", "compiled", kind=bool)
@_option("--checkpoint-activations", kind=bool)
@_option("--checkpoint-every", kind=int)
@_option("--log-to")
def _objective(**options: Any) -> None:
    """Train with the objective that the command is named after."""
    options["log_to"] = tuple(part.strip() for text in options["log_to"] for part in text.split(","))
    job = TrainingJob(objective=str(click.get_current_context().info_name), **options)
    from bench.train.trainer import run

    with _stoppable():
        say(run(job, _score))


@contextmanager
def _stoppable() -> "Iterator[None]":
    """One line and exit code 128 plus the signal's number for a run that is told to stop."""
    from bench.train.stopping import Interrupted

    try:
        yield
    except Interrupted as stopped:
        if stopped.main:
            say(f"bench: {stopped}", err=True)
        raise SystemExit(stopped.code) from None
    except KeyboardInterrupt:
        say("bench: stopped at once; the same command goes on from the last checkpoint", err=True)
        raise SystemExit(130) from None


def _score(job: TrainingJob, suite: str, device: str) -> None:
    """Measure the scores that enter the model card."""
    from bench import api

    api.run(
        encoder=str(job.output),
        task="zeroshot",
        suite=suite,
        output=job.results,
        data_root=job.data_root,
        device=device,
    )


@train.command()
@click.argument("model")
@click.option("--work", type=PATH, default=None, help="Checkpoints. Default: runs/train/MODEL.")
@click.option("--output", type=PATH, default=None, help="Default: the work folder's export/.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--base", type=PATH, default=None, help="Folder of the clip that others start from. Default: shipped.")
@click.option("--threads", type=int, default=1, show_default=True, help="CPU threads; shipped models: 1 (clip: 2).")
def recipe(model: str, work: Path | None, output: Path | None, seed: int, base: Path | None, threads: int) -> None:
    """Train a model of the miniature suite by its committed recipe; resumable.

    \b
    Example:
      bench train recipe fare4
    """  # noqa: D301
    import torch

    from bench.mini.recipes import train_model

    torch.set_num_threads(threads)
    work = work or Path("runs/train") / model
    with _stoppable():
        say(train_model(model, work, output or work / "export", seed=seed, base=base))


@train.command()
@click.option("--arch", required=True, help="Architecture of both.")
@click.option("--weights", default=None, help="The original's weights.")
@click.option("--trained", type=PATH, required=True, help="Run directory or image-tower file.")
@click.option("--share", type=float, default=0.5, show_default=True, help="Of the trained weights; 0 is the original.")
@click.option("--output", type=PATH, required=True)
def blend(arch: str, weights: str | None, trained: Path, share: float, output: Path) -> None:
    """Interpolate between the weights of the original and of a trained tower.

    \b
    Example:
      bench train blend --arch ViT-L-14 --weights openai --trained runs/fare4 --share 0.7 --output runs/blend
    """  # noqa: D301
    from bench.train import trainer

    say(trainer.blend(arch, weights, trained, share, output))


@train.command()
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--results", type=PATH, default=DEFAULT_OUTPUT, show_default=True)
def card(directory: Path, results: Path) -> None:
    """Write a trained model's card again, with the numbers that ``bench run`` has recorded since.

    \b
    Example:
      bench run --encoder runs/fare4 --task zeroshot && bench train card runs/fare4
    """  # noqa: D301
    from bench.train.card import TRAINING, write_card

    if not (directory / TRAINING).is_file():
        raise UsageError(f"{directory} is not the folder of a finished training run: it has no {TRAINING}")
    say(write_card(directory, results))
