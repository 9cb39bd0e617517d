"""A whole training job, as ``bench train fare ...`` asks for it: train, export, describe."""

import copy
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench import sinks
from bench.batch_size import is_out_of_memory
from bench.models.encoders.checkpoint import read_state_dict
from bench.models.encoders.encoder import Encoder
from bench.models.encoders.load import digest
from bench.train import card
from bench.train.adversarial import finetune
from bench.train.base import Base, load_base
from bench.train.checkpoint import CHECKPOINT, TrainingError, prepare_directory
from bench.train.classes import class_names, class_weights, digest_of
from bench.train.distributed import World, join, leave
from bench.train.export import VISUAL, export
from bench.train.export import blend as mix
from bench.train.holdout import evaluation, split
from bench.train.hooks import Hooks
from bench.train.job import TrainingJob
from bench.train.memory import out_of_memory_elsewhere
from bench.train.objectives import TrainingObjective, load_objective
from bench.train.observe import Observer
from bench.train.sources import Raw, Source, open_source
from bench.train.step import Runtime
from bench.train.stream import ImageStream, skipped_names
from bench.train.towers import checkpoint_activations

SKIPPED = "skipped.jsonl"
Score = Callable[[TrainingJob, str, str], None]
"""Scores the encoder in a finished job's folder on a suite, on a device, and records that in the job's results."""


@dataclass(frozen=True)
class _Setup:
    """What a job needs before its first update."""

    job: TrainingJob
    world: World
    objective: TrainingObjective
    source: Source
    held_out: list[Raw]
    base: Base
    original: Encoder
    names: list[str] | None
    classes: Tensor | None

    def identity(self) -> dict[str, object]:
        """What besides the recipe makes another run of it."""
        job = self.job
        return {
            "arch": job.arch,
            "weights": job.weights,
            "weights_sha256": digest(self.original.visual)[:16],
            "data": job.data,
            "fingerprint": self.source.fingerprint,
            "held_out": len(self.held_out),
            "bfloat16": job.bf16,
            "classnames": digest_of(self.names),
        }


def run(job: TrainingJob, score: Score | None = None) -> Path:
    """Train, export, and write the model card; the same call goes on where a crash stopped it.

    Args:
        job: what to train.
        score: measures the scores that enter the card; None for a card without.

    Returns:
        The run directory.

    Raises:
        UsageError: the model, the data or the directory is not what it should be.
        TrainingError: see `bench.train.adversarial.finetune`.
        Interrupted: Ctrl-C or SIGTERM, once the update under way is saved.
    """
    sinks.check(job.log_to)
    world = join(job.device)
    try:
        setup = _prepare(job, world)
        _train(setup)
        if world.main:
            _publish(setup, score)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise out_of_memory_elsewhere(world.device, error) from error
    finally:
        leave()
    return job.output


def _prepare(job: TrainingJob, world: World) -> _Setup:
    objective = load_objective(job.objective)
    source, held_out = split(open_source(job.data), job)
    base = load_base(job.arch, job.weights, seed=job.seed)
    original = Encoder(copy.deepcopy(base.encoder.visual), base.encoder.preprocessing, base.encoder.text)
    names = class_names(job.objective, source, job.classnames) if "labels" in objective.needs else None
    classes = None if names is None else class_weights(base, names).to(world.device)
    if job.checkpoint_activations:
        checkpoint_activations(base.encoder)
    prepare_directory(job.output, {"tower": base.encoder.visual})
    return _Setup(job, world, objective, source, held_out, base, original, names, classes)


def _train(setup: _Setup) -> None:
    """Fine-tune the base's image tower in place."""
    job, world, tower = setup.job, setup.world, setup.base.encoder
    stream = ImageStream(
        setup.source,
        tower.preprocess,
        job.batch,
        seed=job.seed,
        world=world,
        threads=job.data_threads,
        upright="exif-ignored" not in job.resolved().flaws,
        skipped_file=_skipped_file(job, world),
    )
    with ExitStack() as stack:
        stack.callback(stream.close)
        observer = stack.enter_context(closing(Observer(job, setup.identity())))
        _finetune(setup, stream, observer)
    world.wait()  # now all have named the images that they skipped


def _finetune(setup: _Setup, stream: ImageStream, observer: Observer) -> None:
    job, world, tower = setup.job, setup.world, setup.base.encoder
    recipe, identity = job.resolved(), setup.identity()
    for encoder in (tower, setup.original):
        _to_device(encoder, world.device)
    evaluate = evaluation(tower, setup.original, setup.held_out, stream, job, classes=setup.classes, world=world)
    finetune(
        job.objective,
        tower,
        setup.original,
        recipe,
        stream,
        job.output,
        objective=setup.objective,
        classes=setup.classes,
        checkpoint_every=job.checkpoint_every,
        settings=identity,
        runtime=Runtime(world, job.micro_batch, job.bf16, job.compiled),
        hooks=Hooks(position=stream, observe=observer, evaluate=evaluate, evaluate_every=job.eval_every),
    )


def _skipped_file(job: TrainingJob, world: World) -> Path:
    """Where skipped images are named: empty for a run that begins."""
    file = job.output / SKIPPED
    if world.main and not (job.output / CHECKPOINT).exists():
        file.unlink(missing_ok=True)
    world.wait()
    return file


def _to_device(encoder: Encoder, device: torch.device) -> None:
    """Only the image side: the text tower is not needed while training."""
    encoder.visual.to(device)
    encoder.mean, encoder.std = encoder.mean.to(device), encoder.std.to(device)


def _publish(setup: _Setup, score: Score | None) -> None:
    """Everything that others read; scores come last, since they can be had again by the same command."""
    job = setup.job
    export(setup.base, job.output)
    card.write_training(job.output, _facts(setup))
    card.write_card(job.output, job.results)
    suite = job.suite_to_score()
    if suite is None or score is None:
        return
    setup.base.encoder.cpu()
    score(job, suite, str(setup.world.device))
    card.write_card(job.output, job.results)


def _facts(setup: _Setup) -> dict[str, Any]:
    job, device = setup.job, setup.world.device
    return {
        "name": job.output.name,
        "arch": job.arch,
        "weights": job.weights or "its own",
        "about": setup.objective.about,
        "recipe": asdict(job.resolved()),
        "data": job.data,
        "fingerprint": setup.source.fingerprint,
        "held_out": len(setup.held_out),
        "skipped": len(skipped_names(job.output / SKIPPED)),
        "precision": "bfloat16 autocast" if job.bf16 else "float32",
        "processes": setup.world.size,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "digest": digest(setup.base.encoder.visual),
    }


def blend(arch: str, weights: str | None, trained: Path, share: float, output: Path) -> Path:
    """Interpolate between the original's weights and a trained tower's, and export the result.

    Args:
        arch: see `bench.train.base.load_base`.
        weights: likewise.
        trained: run directory or file of the trained tower.
        share: of the trained weights, in [0, 1].
        output: an empty folder, or one to make.

    Returns:
        The output folder.

    Raises:
        UsageError: a file that is missing or does not fit; a share outside [0, 1].
    """
    base = load_base(arch, weights)
    mix(base, read_state_dict(trained / VISUAL if trained.is_dir() else trained), share)
    if output.exists() and any(output.iterdir()):
        raise TrainingError(f"{output} is not empty; give another --output")
    export(base, output)
    return output
