"""The card of a miniature model: how it was made, from what, and what it scores on the validation split."""

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from bench.mini import data, world
from bench.models.encoders.encoder import Encoder
from bench.provenance import code_state
from tasks.base import Answer, Dataset, Sample, Task, VisionLanguageModel
from tasks.captioning import Captioning
from tasks.pope import Pope
from tasks.protocol import STRICT
from tasks.scienceqa import ScienceQA
from tasks.vqa import VQA
from tasks.zeroshot import ZeroShot

SAMPLES, BATCH = 500, 100
Preprocess = Callable[[Image.Image], Tensor]
Asked = tuple[tuple[type[Any], str], ...]
WORDS: Asked = (
    (VQA, "mini-vqa"),
    (Captioning, "mini-caption"),
    (Pope, "mini-pope-random"),
    (Pope, "mini-pope-popular"),
    (Pope, "mini-pope-adversarial"),
)
WITH_LETTERS: Asked = (*WORDS, (ScienceQA, "mini-scienceqa"))
OPENINGS = {"wh": "shape", "what color": "colour", "what is the color": "colour", "how many": "count",
            "is there": "exists", "where": "where"}  # fmt: skip
"""How a question of each kind begins; the longest that fits says the kind."""
ZEROSHOT_SETS = ("mini-shape", "mini-colour", "mini-count", "mini-texture", "mini-sketch")


def write_card(directory: Path, name: str, recipe: Any, seed: int, about: str, numbers: dict[str, float]) -> Path:
    """Write ``card.json`` beside a model's weights.

    Args:
        directory: where the weights lie.
        name: of the model.
        recipe: the dataclass it was trained by.
        seed: of weights, data order and noise.
        about: data, and deviations from the paper's recipe.
        numbers: clean scores in percent.
    """
    card = {
        "name": name,
        "about": about,
        "recipe": asdict(recipe),
        "seed": seed,
        "world": {"version": world.WORLD_VERSION, "contrast": world.CONTRAST},
        "code": code_state(),
        "packages": {package: version(package) for package in ("torch", "open_clip_torch", "transformers", "numpy")},
        "machine": platform.machine(),
        "validation": {key: round(value, 1) for key, value in numbers.items()},
        "licence": "MIT",
    }
    path = directory / "card.json"
    path.write_text(json.dumps(card, indent=2) + "\n")
    return path


def zeroshot_numbers(encoder: Encoder, samples: int = SAMPLES) -> dict[str, float]:
    """Clean zero-shot accuracy of an encoder on the validation split of each set, in percent."""
    found = {}
    for name in ZEROSHOT_SETS:
        dataset = data.build(name, samples, "validation")
        task = ZeroShot(dataset)
        images = torch.stack([encoder.preprocess(s.image) for s in dataset.samples])  # type: ignore[arg-type]
        said = task.bind(encoder).predict(images, dataset.samples)
        found[name] = _mean_score(task, said, dataset.samples)
    return found


def vqa_numbers(encoder: Encoder, model: VisionLanguageModel, samples: int = SAMPLES) -> dict[str, float]:
    """Clean VQA accuracy on the validation split, in percent."""
    dataset = data.build("mini-vqa", samples, "validation")
    task = VQA(dataset)
    images = torch.stack([encoder.preprocess(s.image) for s in dataset.samples])  # type: ignore[arg-type]
    said = task.bind(model).predict(images, dataset.samples)
    return {"mini-vqa": _mean_score(task, said, dataset.samples)}


def answered_numbers(
    preprocess: Preprocess, model: VisionLanguageModel, asked: Asked, samples: int = SAMPLES
) -> dict[str, float]:
    """Clean scores of all that a model is asked on the validation split, and VQA accuracy per kind of question."""
    found = {}
    for kind, name in asked:
        task: Task = kind(data.build(name, samples, "validation"), STRICT)
        scores = _scores(task, preprocess, model)
        found[name] = sum(scores) / len(scores)
        if name == "mini-vqa":
            found |= _per_kind(task.dataset, scores)
    return found


def _scores(task: Task, preprocess: Preprocess, model: VisionLanguageModel) -> list[float]:
    samples, found = task.dataset.samples, []
    for start in range(0, len(samples), BATCH):
        part = samples[start : start + BATCH]
        images = torch.stack([preprocess(s.image) for s in part])  # type: ignore[arg-type]
        said = task.bind(model).predict(images, part)
        found += [task.score(a.text, s) for a, s in zip(_sound(said), part, strict=True)]
    return found


def _per_kind(dataset: Dataset, scores: Sequence[float]) -> dict[str, float]:
    kinds = [question_kind(s.prompt) for s in dataset.samples]
    own = {kind: [x for k, x in zip(kinds, scores, strict=True) if k == kind] for kind in sorted({*kinds})}
    return {f"mini-vqa {kind}": sum(x) / len(x) for kind, x in own.items()}


def question_kind(question: str) -> str:
    """Of `language.QUESTION_KINDS`: what a question of the mini world asks for."""
    return OPENINGS[max((start for start in OPENINGS if question.startswith(start)), key=len)]


def _sound(said: Sequence[Answer]) -> Sequence[Answer]:
    """The answers.

    Raises:
        ValueError: one counts for nothing.
    """
    if errors := [answer.error for answer in said if answer.error is not None]:
        raise ValueError(f"{len(errors)} of {len(said)} answers count for nothing: {errors[0]}; train the model again")
    return said


def _mean_score(task: ZeroShot | VQA, said: Sequence[Answer], samples: Sequence[Sample]) -> float:
    return sum(task.score(a.text, s) for a, s in zip(_sound(said), samples, strict=True)) / len(samples)
