"""How each miniature model is made: `train_model` is what `bench train recipe MODEL` runs."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from bench.errors import UsageError
from bench.mini import clip, llava, openflamingo, qwen2vl, world
from bench.mini.card import WITH_LETTERS, WORDS, answered_numbers, vqa_numbers, write_card, zeroshot_numbers
from bench.models.encoders.catalogue import EncoderRow
from bench.models.encoders.encoder import Encoder
from bench.models.encoders.load import digest, load_encoder, load_row
from bench.models.victims.load import load_victim
from bench.train.adversarial import finetune
from bench.train.batch import Batch
from bench.train.objectives import classes_of
from bench.train.recipe import Recipe
from bench.train.schedule import Schedule

FINETUNING = {
    "fare2": Recipe("fare", 2, Schedule(600, 64, 3e-4, warmup=40)),
    "fare4": Recipe("fare", 4, Schedule(1200, 64, 3e-4, warmup=80)),
    "tecoa2": Recipe("tecoa", 2, Schedule(500, 64, 3e-4, warmup=40)),
    "tecoa4": Recipe("tecoa", 4, Schedule(600, 64, 2e-4, warmup=40), ramp=0.6),
}
SEEDS = {"clip-seed1": 1, "clip-seed2": 2}  # other miniature CLIPs, for transfer between encoders
MODELS = ("clip", *SEEDS, *FINETUNING, "llava", "openflamingo", "qwen2vl")
WEIGHTS = "visual.safetensors"
ABOUT = {
    "clip": "contrastive on 102,400 captioned scenes; equal captions in a batch are all positives; bfloat16 autocast",
    "llava": "frozen clip tower; one caption and up to five questions on each of 72,000 scenes; bfloat16 autocast",
    "openflamingo": (
        "frozen clip tower, tokens of its last block; perceiver of 16 latents and depth 2, gated blocks before layers "
        "1 and 3 of a 4-layer GPT-NeoX, all from scratch; 60,000 scenes, each shown in four sequences of up to two "
        "chunks of text and three with images: captions, questions, yes or no, multiple choice. Not learned: "
        "'is there' (at chance) and 'where', for the tower's last tokens do not say which patch they are"
    ),
    "qwen2vl": (
        "all from scratch, no encoder of the suite in it; one caption and up to five questions on each of 40,000 "
        "scenes, in three of eight steps enlarged or stretched to 12 or 16 tokens; a linear head beside, left out of "
        "the checkpoint, names shape and colour in each cell of the images of 9 tokens"
    ),
    "fare": (
        "unlabelled scenes. As in the paper: summed squared difference of projected embeddings, PGD-10 of step 1/255 "
        "from a random start. Otherwise: learning rate 3e-4, batch 64, fewer steps, the inner attack returns its best "
        "iterate and its start is clipped to the image box, the first update is warmed up"
    ),
    "tecoa": (
        "photos of one object labelled with its shape. As in the paper: cross-entropy to the original text embeddings "
        "of one template, PGD-10 of step 1/255 from a random start. Otherwise: the miniature's own logit scale in "
        "place of 100, batch 64, fewer steps, best iterate, warmed up; tecoa4 with a linear eps ramp over 60 % of the "
        "run, without which its loss stays at chance"
    ),
}
TECOA_TEMPLATE = "a photo of a {c}"
FARE_STREAM, TECOA_STREAM = 2, 3


def train_model(
    name: str, work: Path, output: Path, *, seed: int = 0, base: Path | None = None, steps: int | None = None
) -> Path:
    """Train a miniature model, resuming from ``work``, and write its shipped form to ``output``.

    Args:
        name: one of `MODELS`; all but those called ``clip`` and ``qwen2vl`` start from a ``clip``.
        work: folder for checkpoints and metrics.
        output: folder to write; its layout is the one of ``bench/mini/weights``.
        seed: of initial weights, data order and noise; models named after a seed have that one.
        base: the folder of that ``clip``; None for the shipped one.
        steps: fewer updates than the recipe's, to try things out; the model is worth nothing then.

    Raises:
        UsageError: no such model.
        TrainingError: ``work`` holds a checkpoint of another recipe, seed or base.
    """
    if name not in MODELS:
        raise UsageError(f"no recipe for {name!r}; the mini suite has {', '.join(MODELS)}")
    seed = SEEDS.get(name, seed)
    if name in ("clip", *SEEDS):
        clip.export(clip.train(work, seed=seed, **_shortened(clip.SCHEDULE, clip.IMAGES, steps)), output)
    elif name == "llava":
        options = _shortened(llava.SCHEDULE, llava.IMAGES, steps)
        llava.export(llava.train(_original(base), work, seed=seed, **options), output)
    elif name == "openflamingo":
        options = _shortened(openflamingo.SCHEDULE, openflamingo.IMAGES, steps)
        openflamingo.export(openflamingo.train(_original(base), work, seed=seed, **options), output, seed=seed)
    elif name == "qwen2vl":
        qwen2vl.export(qwen2vl.train(work, seed=seed, **_shortened(qwen2vl.SCHEDULE, qwen2vl.IMAGES, steps)), output)
    else:
        _finetune(name, _recipe(name, seed, steps), base, work, output)
    document(name, output, seed, base, steps)
    return output


def _original(base: Path | None) -> Encoder:
    """The encoder that the others start from."""
    return load_encoder("clip" if base is None else str(base))


def _shortened(schedule: Schedule, images: int, steps: int | None) -> dict[str, Any]:
    """A schedule and the images that it goes through: the recipe's, or those of fewer updates."""
    if steps is None:
        return {"schedule": schedule, "images": images}
    short = replace(schedule, steps=steps, warmup=min(schedule.warmup, steps))
    return {"schedule": short, "images": min(images, steps * schedule.batch)}


def _recipe(name: str, seed: int, steps: int | None) -> Recipe:
    recipe = FINETUNING[name]
    return replace(recipe, seed=seed, schedule=_shortened(recipe.schedule, 0, steps)["schedule"])


def document(name: str, output: Path, seed: int, base: Path | None = None, steps: int | None = None) -> Path:
    """Write the card of a trained model beside its weights in ``output``; arguments as of `train_model`."""
    if name in FINETUNING:
        recipe, about = _recipe(name, seed, steps), ABOUT[FINETUNING[name].objective]
        return write_card(output, name, recipe, seed, about, zeroshot_numbers(_tuned(base, output / WEIGHTS)))
    schedule, numbers = _examined(name, output, base)
    about = ABOUT["clip" if name in SEEDS else name]
    return write_card(output, name, _shortened(schedule, 0, steps)["schedule"], seed, about, numbers)


def _examined(name: str, output: Path, base: Path | None) -> tuple[Schedule, dict[str, float]]:
    """The schedule of a model that is no fine-tuned tower, and what it scores on validation images."""
    if name in ("clip", *SEEDS):
        return clip.SCHEDULE, zeroshot_numbers(load_encoder(str(output)))
    if name == "qwen2vl":
        model = load_victim(str(output), None)
        return qwen2vl.SCHEDULE, answered_numbers(model.preprocess, model, WORDS)
    encoder = _original(base)
    victim = load_victim(str(output), encoder)
    if name == "llava":
        return llava.SCHEDULE, vqa_numbers(encoder, victim)
    return openflamingo.SCHEDULE, answered_numbers(encoder.preprocess, victim, WITH_LETTERS)


def _tuned(base: Path | None, weights: Path) -> Encoder:
    """A fine-tuned image tower with the text tower of the encoder that it began from."""
    if base is None:
        return load_encoder(str(weights))
    row = EncoderRow("tuned", base="clip", visual=str(weights))
    return load_row(row, {"clip": EncoderRow("clip", model=str(base)), "tuned": row})


def _finetune(name: str, recipe: Recipe, base: Path | None, work: Path, output: Path) -> None:
    tower, original = _original(base), _original(base)
    classes: Tensor | None = None
    batches: Callable[[int], Batch] = partial(_scenes, recipe=recipe)
    if recipe.objective == "tecoa":
        weights = original.text.classifier(world.SHAPES, [TECOA_TEMPLATE])
        classes, batches = classes_of(weights, original.text.scale), partial(_labelled_shapes, recipe=recipe)
    settings: dict[str, object] = {"world": world.WORLD_VERSION, "contrast": world.CONTRAST}
    settings |= {"clip": digest(original.visual)[:16]}
    finetune(name, tower, original, recipe, batches, work, classes=classes, settings=settings)
    output.mkdir(parents=True, exist_ok=True)
    state = {key: value.half().contiguous() for key, value in tower.visual.state_dict().items()}
    save_file(state, output / WEIGHTS)


def to_pixels(images: np.ndarray) -> Tensor:
    """(N, 48, 48, 3) uint8 -> (N, 3, 48, 48) float32 in [0, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def _scenes(step: int, *, recipe: Recipe) -> Batch:
    """Unlabelled scenes of the whole world."""
    batch = recipe.schedule.batch
    start = (recipe.seed * recipe.schedule.steps + step) * batch
    images = to_pixels(world.render(world.draw_scenes("train", batch, start=start, stream=FARE_STREAM)))
    return Batch(images, ids=[f"scene {start + i}" for i in range(batch)])


def _labelled_shapes(step: int, *, recipe: Recipe) -> Batch:
    """Photos of one object, labelled with its shape: the miniature's ImageNet."""
    batch = recipe.schedule.batch
    start = (recipe.seed * recipe.schedule.steps + step) * batch * 4
    drawn = world.draw_scenes("train", batch * 4, start=start, stream=TECOA_STREAM)
    single = drawn[np.flatnonzero((drawn.count == 1) & (drawn.style == 0))[:batch]]
    ids = [f"photo {i} of scenes {start} and on" for i in range(len(single))]
    return Batch(to_pixels(world.render(single)), torch.from_numpy(single.shape[:, 0].copy()), ids)
