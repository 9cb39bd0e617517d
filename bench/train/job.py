"""A whole training job, as ``bench train fare ...`` asks for it."""

import copy
import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor, nn

from bench.errors import UsageError
from bench.models.encoder import Encoder
from bench.models.load import digest
from bench.train import card
from bench.train.adversarial import finetune
from bench.train.base import Base, load_base
from bench.train.checkpoint import TrainingError, prepare_directory
from bench.train.distributed import World, join, leave
from bench.train.evaluate import HeldOut
from bench.train.export import blend, export
from bench.train.loop import Hooks
from bench.train.objectives import TrainingObjective, classes_of, load_objective
from bench.train.observe import tensorboard
from bench.train.recipe import PAPER_SCALE, PAPER_TEMPLATE, Recipe
from bench.train.sources import IndexedSource, Raw, ShardSource, open_source
from bench.train.step import Runtime
from bench.train.stream import UNREADABLE, ImageStream, decode
from bench.train.towers import checkpoint_activations

LARGEST_SHARE_HELD_OUT = 0.05


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
    results: Path = Path("results/runs")


def run(job: Job) -> Path:
    """Train, export, and write the model card; the same call goes on where a crash stopped it.

    Raises:
        UsageError: the model, the data or the directory is not what it should be.
        TrainingError: see `bench.train.adversarial.finetune`.
    """
    world = join(job.device)
    try:
        return _run(job, world)
    finally:
        leave()


def _run(job: Job, world: World) -> Path:
    objective = load_objective(job.recipe.objective)
    source, held_out = _split(open_source(job.data), job)
    base = load_base(job.arch, job.weights, seed=job.recipe.seed)
    original = Encoder(copy.deepcopy(base.encoder.visual), base.encoder.preprocessing, base.encoder.text)
    classes = _classes(base, objective, job, source.classes)
    if job.checkpointing:
        checkpoint_activations(base.encoder)
    prepare_directory(job.output, {"tower": base.encoder.visual})
    stream = ImageStream(
        source, base.encoder.preprocess, job.recipe.schedule.batch, seed=job.recipe.seed, world=world,
        threads=job.threads, skipped_file=job.output / "skipped.jsonl",
    )  # fmt: skip
    for encoder in (base.encoder, original):
        _to_device(encoder, world.device)
    classes = None if classes is None else classes.to(world.device)
    evaluate = _evaluation(base.encoder, original, held_out, classes, job, world)
    observe, close = tensorboard(job.output / "tensorboard") if world.main else (lambda row: None, lambda: None)
    finetune(
        job.recipe.objective, base.encoder, original, job.recipe, stream, job.output,
        objective=objective, classes=classes, checkpoint_every=job.checkpoint_every,
        settings={"arch": job.arch, "weights": job.weights, "data": job.data, "fingerprint": source.fingerprint,
                  "held_out": len(held_out), "bfloat16": job.bfloat16, "classes": _digest(classes)},
        runtime=Runtime(world, job.micro_batch, job.bfloat16, job.compiled),
        hooks=Hooks(position=stream, observe=observe, evaluate=evaluate, evaluate_every=job.evaluate_every),
    )  # fmt: skip
    stream.close()
    close()
    skipped = {name for part in world.gather(sorted(stream.skipped)) for name in part}  # type: ignore[attr-defined]
    if world.main:
        export(base, job.output)
        card.write_training(job.output, _facts(job, base, source, objective, len(held_out), len(skipped), world))
        card.write_card(job.output, job.results)
    world.wait()
    return job.output


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
        return source, next(iter(other.batches(job.recipe.seed, 0, job.held_out, 0)), [])
    if not isinstance(source, IndexedSource):
        return source, []
    return source.split(min(job.held_out, int(len(source) * LARGEST_SHARE_HELD_OUT)), job.recipe.seed)


def _evaluation(
    tower: Encoder, original: Encoder, raws: list[Raw], classes: Tensor | None, job: Job, world: World
) -> Callable[[int], dict[str, float]] | None:
    """Every process evaluates the same images, so that none waits; rank 0's figures are written."""
    found = []
    for raw in raws:
        try:
            found.append((decode(raw, tower.preprocess), raw.label))
        except UNREADABLE:
            continue
    if not found:
        return None
    labelled = classes is not None and all(label is not None for _, label in found)
    labels = torch.tensor([label for _, label in found]) if labelled else None
    images = torch.stack([image for image, _ in found])
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


def _classes(
    base: Base, objective: TrainingObjective, job: Job, folders: tuple[str, ...] | None
) -> Tensor | None:  # fmt: skip
    """Class weights for objectives with labels: the paper's template and scale."""
    if "labels" not in objective.needs:
        return None
    if folders is None and job.classnames is None:
        raise UsageError(f"{job.recipe.objective} needs labels: use imagefolder:DIR or hf:NAME, or name the classes of "
                         "WebDataset labels with --classnames FILE")  # fmt: skip
    names = class_names(folders, job.classnames)
    scale = PAPER_SCALE if "siglip" not in job.arch.lower() else base.encoder.text.scale
    return classes_of(base.encoder.text.classifier(names, [PAPER_TEMPLATE]), scale)


def class_names(folders: tuple[str, ...] | None, file: Path | None) -> list[str]:
    """Names of the labels: of a file, of ImageNet for its 1000 folders, else the folders' own.

    Raises:
        UsageError: the file has another number of names than there are folders.
    """
    if file is not None:
        names = [line.strip() for line in file.read_text().splitlines() if line.strip()]
        if folders is not None and len(names) != len(folders):
            raise UsageError(f"{file} names {len(names)} classes, the data has {len(folders)}")
        return names
    assert folders is not None
    if len(folders) == len(open_clip.IMAGENET_CLASSNAMES) and all(_is_wordnet(name) for name in folders):
        return list(open_clip.IMAGENET_CLASSNAMES)  # sorted WordNet ids are ImageNet's order
    return [name.replace("_", " ") for name in folders]


def _digest(classes: Tensor | None) -> str | None:
    """Changes with the class names."""
    return None if classes is None else hashlib.sha256(classes.cpu().numpy().tobytes()).hexdigest()[:16]


def _is_wordnet(name: str) -> bool:
    return len(name) == 9 and name[0] == "n" and name[1:].isdigit()


def _facts(
    job: Job, base: Base, source: IndexedSource | ShardSource, objective: TrainingObjective, held_out: int,
    skipped: int, world: World,
) -> dict[str, Any]:  # fmt: skip
    device = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else "CPU"
    return {
        "name": job.output.name, "arch": job.arch, "weights": job.weights or "its own", "about": objective.about,
        "recipe": asdict(job.recipe), "data": job.data, "fingerprint": source.fingerprint, "held_out": held_out,
        "skipped": skipped, "precision": "bfloat16 autocast" if job.bfloat16 else "float32",
        "processes": world.size, "device": device, "digest": digest(base.encoder.visual),
    }  # fmt: skip


def run_blend(arch: str, weights: str | None, trained: Path, share: float, output: Path) -> Path:
    """Interpolate between the original's weights and a trained tower's, and export the result.

    Raises:
        UsageError: a file that is missing or does not fit; a share outside [0, 1].
    """
    from bench.models.checkpoint import read_state_dict

    base = load_base(arch, weights)
    blend(base, read_state_dict(trained / "visual.pt" if trained.is_dir() else trained), share)
    if output.exists() and any(output.iterdir()):
        raise TrainingError(f"{output} is not empty; give another --output")
    export(base, output)
    return output
