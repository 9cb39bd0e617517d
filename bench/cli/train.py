"""``bench train``: make a robust encoder."""

from pathlib import Path
from typing import Any

import click

from bench import registry
from bench.config import DEFAULT_OUTPUT
from bench.errors import UsageError

MINI = "recipe"
EXAMPLE_DATA = {"fare": "folder:/data/images", "tecoa": "imagefolder:/data/imagenet/train"}
HELP = """Fine-tune an image tower with the objective {name}; resumable by the same command.

\b
Examples:
  bench train {name} --arch ViT-L-14 --weights openai --data {data} --eps 4 --output runs/{name}4
  bench train {name} --arch ViT-B-32 --weights laion2b_s34b_b79k --data {data} --eps 2 --output runs/b32 \\
    --steps 2000 --batch 64 --micro-batch 16 --bf16 --compile
  bench train {name} --arch FOLDER --data "hf:OWNER/NAME?split=train&image=image&label=label" --output runs/own
  bench train {name} --recipe paper --arch ViT-L-14 --weights openai --data {data} --output runs/as-published
  torchrun --nproc-per-node 8 -m bench.cli train {name} --arch ViT-L-14 --weights openai --data {data} --output runs/8
"""


class _Methods(click.Group):
    """A command a training objective; anything else names a committed recipe of a suite."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        known = set(self.list_commands(ctx))
        named = any(a == "--suite" or a.startswith("--suite=") for a in args)
        if args and (named or (args[0] not in known and args[0] not in ("-h", "--help"))):
            args = [MINI, *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*registry.names("bench.objectives"), *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in registry.names("bench.objectives"):
            return _method(cmd_name)
        return super().get_command(ctx, cmd_name)


@click.group(cls=_Methods)
def train() -> None:
    """Make a robust CLIP encoder.

    \b
    From your own images, with any architecture of open_clip (resumable: run the same command again):
      bench train fare --arch ViT-L-14 --weights openai --data imagefolder:/data/train --eps 4 --output runs/fare4
      torchrun --nproc-per-node 8 -m bench.cli train fare --arch ViT-L-14 ...      on eight devices
      bench run --encoder runs/fare4 --task zeroshot
    Between the original and the trained weights:
      bench train blend --arch ViT-L-14 --weights openai --trained runs/fare4 --share 0.7 --output runs/blend
    A miniature model, by its committed recipe:
      bench train --suite mini fare4 && bench run --encoder runs/train/fare4/export/visual.safetensors --task vqa
    """  # noqa: D301


@train.command(MINI)
@click.argument("model")
@click.option("--suite", default="mini", show_default=True)
@click.option("--work", type=click.Path(path_type=Path), default=None, help="Checkpoints. Default: runs/train/MODEL.")
@click.option("--output", type=click.Path(path_type=Path), default=None, help="Default: the work folder's export/.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--threads", type=int, default=1, show_default=True, help="CPU threads; shipped models: 1 (clip: 2).")
def recipe_command(model: str, suite: str, work: Path | None, output: Path | None, seed: int, threads: int) -> None:
    """Train a model of a suite by its committed recipe; resumable.

    \b
    Example:
      bench train --suite mini fare4
    """  # noqa: D301
    if suite != "mini":
        raise UsageError(f"suite {suite!r} has no training recipes; use --suite mini")
    import torch

    from bench.mini.recipes import train_model

    torch.set_num_threads(threads)
    work = work or Path("runs/train") / model
    click.echo(train_model(model, work, output or work / "export", seed=seed))


def _path(*names: str, about: str, **extra: Any) -> click.Option:
    return click.Option(names, type=click.Path(path_type=Path), help=about, **extra)


def _flag(*names: str, about: str) -> click.Option:
    return click.Option(names, is_flag=True, help=about)


def _number(*names: str, default: float | None, about: str, kind: type = int) -> click.Option:
    return click.Option(names, type=kind, default=default, show_default=default is not None, help=about)


def _word(*names: str, about: str, **extra: Any) -> click.Option:
    return click.Option(names, help=about, **extra)


def _model_options() -> list[click.Parameter]:
    return [
        _word("--arch", required=True, about="open_clip architecture, hf-hub:NAME, or an open_clip folder."),
        _word("--weights", about="Pretrained tag such as openai, a file, or 'random'. Folders and hub: their own."),
    ]


def _data_options() -> list[click.Parameter]:
    return [
        _word("--data", required=True, about="imagefolder:DIR, folder:DIR, webdataset:PATTERN or hf:NAME?split=train."),
        _path("--output", required=True, about="Run directory; in the end an open_clip folder."),
        _path("--classnames", about="A class name a line, for objectives with labels. Default: folder names."),
        _number("--eval-images", default=256, about="Images held out (at most 5 % of the data); 0 for none."),
        _word("--eval-data", about="Another source for the held-out images; needed with webdataset:."),
        _number("--eval-every", default=1000, about="Updates between evaluations."),
        _number("--data-threads", default=4, about="Threads that decode images, a process."),
        _word(
            "--score", about="Suite whose zero-shot scores enter the card; none: no scores. Default: mini, if cheap."
        ),
        _path("--data-root", about="Datasets of that suite."),
        _path("--results", default=DEFAULT_OUTPUT, show_default=True, about="Records of the scores."),
    ]


def _recipe_options() -> list[click.Parameter]:
    return [
        _word("--recipe", type=click.Choice(["default", "paper"]), default="default", show_default=True,
              about="'paper': with the flaws of the published code; see --flaw."),
        _number("--eps", default=4.0, kind=float, about="Radius of the inner attack, in 1/255."),
        _number("--steps", default=20_000, about="Updates."),
        _number("--batch", default=128, about="Images an update, over all devices."),
        _number("--lr", default=1e-5, kind=float, about="Highest learning rate."),
        _number("--warmup", default=None, about="Updates of warm-up. Default: 7 % of the updates, as in the paper."),
        _number("--weight-decay", default=1e-4, kind=float, about="Of AdamW, on all parameters."),
        _word("--attack", type=click.Choice(["pgd", "apgd"]), default="pgd", show_default=True, about="Inner attack."),
        _number("--inner-steps", default=10, about="Steps of the inner attack."),
        _number("--inner-step", default=1.0, kind=float, about="Length of a PGD step, in 1/255."),
        _number("--clean-weight", default=0.0, kind=float, about="Weight of the loss on clean images, in [0, 1)."),
        _number("--ramp", default=0.0, kind=float, about="Share of the run over which eps grows from 0."),
        _number("--seed", default=0, about="Of data order, noise and random weights."),
        _word("--flaw", "flaws", multiple=True, about="Reproduce one flaw of the published code by name; repeatable."),
    ]  # fmt: skip


def _machine_options() -> list[click.Parameter]:
    return [
        _word("--device", default="auto", show_default=True, about="auto, cpu or cuda."),
        _number("--micro-batch", default=None, about="Images at once on a device; gradients accumulate."),
        _flag("--bf16", "bfloat16", about="bfloat16 autocast; weights and perturbations stay float32."),
        _flag("--compile", "compiled", about="torch.compile the towers."),
        _flag("--checkpoint-activations", "checkpointing", about="Less memory, about a third more work."),
        _number("--checkpoint-every", default=100, about="Updates between checkpoints."),
    ]


def _method(name: str) -> click.Command:
    """The command of one objective."""
    return click.Command(
        name,
        callback=lambda **options: _train(name, options),
        params=[*_model_options(), *_data_options(), *_recipe_options(), *_machine_options()],
        help=HELP.format(name=name, data=EXAMPLE_DATA.get(name, EXAMPLE_DATA["fare"])),
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def _train(name: str, options: dict[str, Any]) -> None:
    from bench.train.job import Job, run
    from bench.train.loop import Schedule
    from bench.train.recipe import Recipe, paper_flaws

    take = options.pop
    steps, warmup = take("steps"), take("warmup")
    warmup = round(0.07 * steps) if warmup is None else warmup
    schedule = Schedule(steps, take("batch"), take("lr"), warmup, take("weight_decay"))
    attack, flaws = take("attack"), take("flaws")
    if take("recipe") == "paper":
        flaws = tuple(sorted({*paper_flaws(attack), *flaws}))
    recipe = Recipe(
        name, take("eps"), schedule, take("inner_steps"), take("inner_step"), take("ramp"), take("seed"), attack,
        take("clean_weight"), flaws,
    )  # fmt: skip
    job = Job(
        recipe=recipe, threads=take("data_threads"), held_out=take("eval_images"), held_out_data=take("eval_data"),
        evaluate_every=take("eval_every"), **options,
    )  # fmt: skip
    click.echo(run(job))


@train.command("blend")
@click.option("--arch", required=True, help="Architecture of both.")
@click.option("--weights", default=None, help="The original's weights.")
@click.option("--trained", type=click.Path(path_type=Path), required=True, help="Run directory or image-tower file.")
@click.option("--share", type=float, default=0.5, show_default=True, help="Of the trained weights; 0 is the original.")
@click.option("--output", type=click.Path(path_type=Path), required=True)
def blend_command(arch: str, weights: str | None, trained: Path, share: float, output: Path) -> None:
    """Interpolate between the weights of the original and of a trained tower.

    \b
    Example:
      bench train blend --arch ViT-L-14 --weights openai --trained runs/fare4 --share 0.7 --output runs/blend
    """  # noqa: D301
    from bench.train.job import run_blend

    click.echo(run_blend(arch, weights, trained, share, output))


@train.command("card")
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--results", type=click.Path(path_type=Path), default=DEFAULT_OUTPUT, show_default=True)
def card_command(directory: Path, results: Path) -> None:
    """Write a trained model's card again, with the numbers that ``bench run`` has recorded since.

    \b
    Example:
      bench run --encoder runs/fare4 --task zeroshot && bench train card runs/fare4
    """  # noqa: D301
    from bench.train.card import TRAINING, write_card

    if not (directory / TRAINING).is_file():
        raise UsageError(f"{directory} is not the folder of a finished training run: it has no {TRAINING}")
    click.echo(write_card(directory, results))
