"""A whole training job, as ``bench train fare ...`` asks for it."""

import copy
import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor, nn
from tqdm import tqdm

from bench.batch_size import is_out_of_memory
from bench.config import load_suite
from bench.errors import UsageError
from bench.models.encoders.encoder import Encoder
from bench.models.encoders.load import digest
from bench.train import card
from bench.train.adversarial import finetune
from bench.train.base import Base, load_base
from bench.train.checkpoint import CHECKPOINT, TrainingError, prepare_directory
from bench.train.distributed import World, join, leave
from bench.train.evaluate import HeldOut
from bench.train.export import blend, export
from bench.train.loop import Hooks
from bench.train.objectives import TrainingObjective, classes_of, load_objective
from bench.train.observe import tensorboard
from bench.train.recipe import PAPER_SCALE, PAPER_TEMPLATE, Recipe
from bench.train.sources import IndexedSource, Raw, ShardSource, open_source
from bench.train.step import Batch, Runtime, check_labels
from bench.train.stream import UNREADABLE, ImageStream, decode, skipped_names
from bench.train.towers import checkpoint_activations

LARGEST_SHARE_HELD_OUT = 0.05
SKIPPED = "skipped.jsonl"
SCORING_PASSES = 5 * 100 * 100 * 2  # datasets, images, steps and radii of the mini suite's zero-shot task
BOUNDS = (
    ("micro_batch", "--micro-batch", 1), ("threads", "--data-threads", 1), ("held_out", "--eval-images", 0),
    ("evaluate_every", "--eval-every", 1), ("checkpoint_every", "--checkpoint-every", 1),
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """What to train, from what, and where to.

    Args:
        arch: see `bench.train.base.load_base`.
        weights: likewise.
        data: see `bench.train.sources.open_source`.
        recipe: objective, attack, schedule.
        output: run directory; an open_clip hub folder in the end.
        device: "auto", "cpu" or "cuda".
        micro_batch: images at once on a device.
        bfloat16: autocast.
        compiled: torch.compile.
        checkpointing: recompute activations.
        threads: that decode images.
        held_out: images to evaluate on; of ``held_out_data`` or, without it, of ``data``.
        held_out_data: a source of its own for them.
        evaluate_every: updates between evaluations.
        checkpoint_every: updates between checkpoints.
        classnames: file with a class name a line, in the order of the labels.
        score: suite whose zero-shot task is run on the result for the model card; "none" for none, None for the mini
            suite where that costs little beside the training.
        data_root: datasets of that suite.
        results: recorded runs whose numbers enter the model card.
    """

    arch: str
    weights: str | None
    data: str
    recipe: Recipe
    output: Path
    device: str = "auto"
    micro_batch: int | None = None
    bfloat16: bool = False
    compiled: bool = False
    checkpointing: bool = False
    threads: int = 4
    held_out: int = 256
    held_out_data: str | None = None
    evaluate_every: int = 1000
    checkpoint_every: int = 100
    classnames: Path | None = None
    score: str | None = None
    data_root: Path | None = None
    results: Path = Path("results/runs")

    def __post_init__(self) -> None:
        for name, flag, least in BOUNDS:
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"{flag} must be at least {least}; got {value}")
        if self.score not in (None, "none"):
            load_suite(self.score)


def run(job: Job) -> Path:
    """Train, export, and write the model card; the same call goes on where a crash stopped it.

    Raises:
        UsageError: the model, the data or the directory is not what it should be.
        TrainingError: see `bench.train.adversarial.finetune`.
    """
    world = join(job.device)
    try:
        return _run(job, world)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(f"out of memory on {world.device} beside the passes of a step (weights, optimizer, images, "
                            f"evaluation): {str(error).splitlines()[0]}. A smaller --micro-batch leaves more; so does "
                            "a smaller architecture") from error  # fmt: skip
    finally:
        leave()


def _run(job: Job, world: World) -> Path:
    objective = load_objective(job.recipe.objective)
    source, held_out = _split(open_source(job.data), job)
    base = load_base(job.arch, job.weights, seed=job.recipe.seed)
    original = Encoder(copy.deepcopy(base.encoder.visual), base.encoder.preprocessing, base.encoder.text)
    names = _class_names(objective, job, source.classes)
    classes = None if names is None else _classes(base, names).to(world.device)
    if job.checkpointing:
        checkpoint_activations(base.encoder)
    prepare_directory(job.output, {"tower": base.encoder.visual})
    settings: dict[str, object] = {
        "arch": job.arch, "weights": job.weights, "weights_sha256": digest(original.visual)[:16], "data": job.data,
        "fingerprint": source.fingerprint, "held_out": len(held_out), "bfloat16": job.bfloat16,
        "classnames": _digest(names),
    }  # fmt: skip
    stream = ImageStream(
        source, base.encoder.preprocess, job.recipe.schedule.batch, seed=job.recipe.seed, world=world,
        threads=job.threads, skipped_file=_skipped_file(job, world),
    )  # fmt: skip
    for encoder in (base.encoder, original):
        _to_device(encoder, world.device)
    evaluate = _evaluation(base.encoder, original, held_out, classes, job, world, stream)
    observe, close = tensorboard(job.output / "tensorboard") if world.main else (lambda row: None, lambda: None)
    finetune(
        job.recipe.objective, base.encoder, original, job.recipe, stream, job.output,
        objective=objective, classes=classes, checkpoint_every=job.checkpoint_every, settings=settings,
        runtime=Runtime(world, job.micro_batch, job.bfloat16, job.compiled),
        hooks=Hooks(position=stream, observe=observe, evaluate=evaluate, evaluate_every=job.evaluate_every),
    )  # fmt: skip
    stream.close()
    close()
    world.wait()  # now all have named the images that they skipped
    if world.main:
        _publish(job, base, _facts(job, base, source, objective, len(held_out), world), world)
    return job.output


def _skipped_file(job: Job, world: World) -> Path:
    """Where skipped images are named: empty for a run that begins."""
    file = job.output / SKIPPED
    if world.main and not (job.output / CHECKPOINT).exists():
        file.unlink(missing_ok=True)
    world.wait()
    return file


def _publish(job: Job, base: Base, facts: dict[str, Any], world: World) -> None:
    """Everything that others read; scores come last, since they can be had again by the same command."""
    export(base, job.output)
    card.write_training(job.output, facts)
    card.write_card(job.output, job.results)
    suite = suite_to_score(job)
    if suite is None:
        return
    from bench import api

    base.encoder.cpu()
    api.run(
        encoder=str(job.output), task="zeroshot", suite=suite, output=job.results, data_root=job.data_root,
        device=str(world.device),
    )  # fmt: skip
    card.write_card(job.output, job.results)


def suite_to_score(job: Job) -> str | None:
    """The suite whose zero-shot scores enter the card: the one that is asked for, else the mini suite if it is cheap.

    It attacks 500 images with 100 steps at two radii, and is left out where training took less than four times that.
    """
    if job.score is not None:
        return None if job.score == "none" else job.score
    schedule = job.recipe.schedule
    passes = schedule.steps * schedule.batch * (job.recipe.inner_steps + 1)
    return "mini" if passes >= 4 * SCORING_PASSES else None


def _to_device(encoder: Encoder, device: torch.device) -> None:
    """Only the image side: the text tower is not needed while training."""
    encoder.visual.to(device)
    encoder.mean, encoder.std = encoder.mean.to(device), encoder.std.to(device)


def _split(source: IndexedSource | ShardSource, job: Job) -> tuple[IndexedSource | ShardSource, list[Raw]]:
    """The source to train on and the held-out images, none of which is trained on."""
    if job.held_out == 0:
        return source, []
    if job.held_out_data is not None:
        other = open_source(job.held_out_data)
        if None not in (source.classes, other.classes) and source.classes != other.classes:
            raise UsageError(f"the classes of {other.name} are not those of {source.name}, in the same order")
        singles = other.batches(job.recipe.seed, 0, 1, 0)
        return source, [raw for (raw,) in islice(singles, job.held_out)]
    if not isinstance(source, IndexedSource):
        tqdm.write("no evaluation while training: images are not held out of shards; give --eval-data")
        return source, []
    return source.split(min(job.held_out, int(len(source) * LARGEST_SHARE_HELD_OUT)), job.recipe.seed)


def _evaluation(
    tower: Encoder, original: Encoder, raws: list[Raw], classes: Tensor | None, job: Job, world: World,
    stream: ImageStream,
) -> Callable[[int], dict[str, float]] | None:  # fmt: skip
    """Every process evaluates the same images, so that none waits; rank 0's figures are written."""
    found = []
    for raw in raws:
        try:
            found.append((decode(raw, tower.preprocess), raw))
        except UNREADABLE as error:
            stream.skip(raw.id, error)
    if not found:
        return None
    images = torch.stack([image for image, _ in found])
    labelled = classes is not None and all(raw.label is not None for _, raw in found)
    labels = torch.tensor([raw.label for _, raw in found]) if labelled else None
    if labelled:
        check_labels(Batch(images, labels, [raw.id for _, raw in found]), job.recipe.objective, classes)
    size = job.micro_batch or max(1, job.recipe.schedule.batch // world.size)
    held_out = HeldOut(images, job.recipe.eps_255 / 255, batch=size, labels=labels, classes=classes)
    return partial(_evaluate, held_out, tower, original)


def _evaluate(held_out: HeldOut, tower: nn.Module, original: nn.Module, done: int) -> dict[str, float]:
    trained = [p for p in tower.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    figures = held_out.evaluate(tower, original)
    for parameter in trained:
        parameter.requires_grad_(True)
    return figures


def _class_names(objective: TrainingObjective, job: Job, folders: tuple[str, ...] | None) -> list[str] | None:
    """Names of the labels, for objectives that read them."""
    if "labels" not in objective.needs:
        return None
    if folders is None and job.classnames is None:
        raise UsageError(f"{job.recipe.objective} needs labels: use imagefolder:DIR or hf:NAME, or name the classes of "
                         "numbered labels (WebDataset, hf:) with --classnames FILE")  # fmt: skip
    return class_names(folders, job.classnames)


def _classes(base: Base, names: list[str]) -> Tensor:
    """Class weights: the paper's template and scale, or the model's own scale if it is a SigLIP, which has a bias."""
    text = base.encoder.text
    scale = PAPER_SCALE if getattr(text.clip, "logit_bias", None) is None else text.scale
    return classes_of(text.classifier(names, [PAPER_TEMPLATE]), scale)


def class_names(folders: tuple[str, ...] | None, file: Path | None) -> list[str]:
    """Names of the labels: of a file, of ImageNet for its 1000 folders, else the folders' own.

    Raises:
        UsageError: the file cannot be read, or has another number of names than there are folders.
    """
    if file is not None:
        try:
            names = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--classnames {file} cannot be read: {error}") from error
        if folders is not None and len(names) != len(folders):
            raise UsageError(f"{file} names {len(names)} classes, the data has {len(folders)}")
        return names
    assert folders is not None
    if len(folders) == len(open_clip.IMAGENET_CLASSNAMES) and all(_is_wordnet(name) for name in folders):
        return list(open_clip.IMAGENET_CLASSNAMES)  # sorted WordNet ids are ImageNet's order
    return [name.replace("_", " ") for name in folders]


def _digest(names: list[str] | None) -> str | None:
    """Changes with the class names."""
    return None if names is None else hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def _is_wordnet(name: str) -> bool:
    return len(name) == 9 and name[0] == "n" and name[1:].isdigit()


def _facts(
    job: Job, base: Base, source: IndexedSource | ShardSource, objective: TrainingObjective, held_out: int, world: World
) -> dict[str, Any]:  # fmt: skip
    device = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else "CPU"
    return {
        "name": job.output.name, "arch": job.arch, "weights": job.weights or "its own", "about": objective.about,
        "recipe": asdict(job.recipe), "data": job.data, "fingerprint": source.fingerprint, "held_out": held_out,
        "skipped": len(skipped_names(job.output / SKIPPED)),
        "precision": "bfloat16 autocast" if job.bfloat16 else "float32", "processes": world.size,
        "device": device, "digest": digest(base.encoder.visual),
    }  # fmt: skip


def run_blend(arch: str, weights: str | None, trained: Path, share: float, output: Path) -> Path:
    """Interpolate between the original's weights and a trained tower's, and export the result.

    Raises:
        UsageError: a file that is missing or does not fit; a share outside [0, 1].
    """
    from bench.models.encoders.checkpoint import read_state_dict

    base = load_base(arch, weights)
    blend(base, read_state_dict(trained / "visual.pt" if trained.is_dir() else trained), share)
    if output.exists() and any(output.iterdir()):
        raise TrainingError(f"{output} is not empty; give another --output")
    export(base, output)
    return output
