"""How each miniature model is made: `train_model` is what `bench train recipe MODEL` runs."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from bench.errors import UsageError
from bench.mini import clip, llava, openflamingo, world
from bench.mini.card import answered_numbers, vqa_numbers, write_card, zeroshot_numbers
from bench.models.encoders.load import load_encoder
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
MODELS = ("clip", *SEEDS, *FINETUNING, "llava", "openflamingo")
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


def train_model(name: str, work: Path, output: Path, *, seed: int = 0) -> Path:
    """Train a miniature model, resuming from ``work``, and write its shipped form to ``output``.

    Args:
        name: one of `MODELS`; all but those called ``clip`` start from the shipped ``clip``.
        work: folder for checkpoints and metrics.
        output: folder to write; its layout is the one of ``bench/mini/weights``.
        seed: of initial weights, data order and noise; models named after a seed have that one.
    """
    if name not in MODELS:
        raise UsageError(f"no recipe for {name!r}; the mini suite has {', '.join(MODELS)}")
    seed = SEEDS.get(name, seed)
    if name in ("clip", *SEEDS):
        clip.export(clip.train(work, seed=seed), output)
    elif name == "llava":
        llava.export(llava.train(load_encoder("clip"), work, seed=seed), output)
    elif name == "openflamingo":
        openflamingo.export(openflamingo.train(load_encoder("clip"), work, seed=seed), output, seed=seed)
    else:
        _finetune(name, work, output, seed)
    document(name, output, seed)
    return output


def document(name: str, output: Path, seed: int) -> Path:
    """Write the card of a trained model beside its weights in ``output``."""
    if name == "llava":
        encoder = load_encoder("clip")
        numbers = vqa_numbers(encoder, load_victim(str(output), encoder))
        return write_card(output, name, llava.SCHEDULE, seed, ABOUT[name], numbers)
    if name == "openflamingo":
        encoder = load_encoder("clip")
        numbers = answered_numbers(encoder, load_victim(str(output), encoder))
        return write_card(output, name, openflamingo.SCHEDULE, seed, ABOUT[name], numbers)
    from_scratch = name in ("clip", *SEEDS)
    encoder = load_encoder(str(output if from_scratch else output / WEIGHTS))
    recipe = clip.SCHEDULE if from_scratch else FINETUNING[name]
    about = ABOUT["clip" if from_scratch else FINETUNING[name].objective]
    return write_card(output, name, recipe, seed, about, zeroshot_numbers(encoder))


def _finetune(name: str, work: Path, output: Path, seed: int) -> None:
    recipe = replace(FINETUNING[name], seed=seed)
    tower, original = load_encoder("clip"), load_encoder("clip")
    classes: Tensor | None = None
    batches: Callable[[int], Batch] = partial(_scenes, recipe=recipe)
    if recipe.objective == "tecoa":
        weights = original.text.classifier(world.SHAPES, [TECOA_TEMPLATE])
        classes, batches = classes_of(weights, original.text.scale), partial(_labelled_shapes, recipe=recipe)
    settings: dict[str, object] = {"world": world.WORLD_VERSION, "contrast": world.CONTRAST}
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
