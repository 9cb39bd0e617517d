"""The card of a miniature model: how it was made, from what, and what it scores on the validation split."""

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from bench.mini import data, world
from bench.models.encoders.encoder import Encoder
from bench.provenance import code_state
from tasks.base import Answer, Sample, VisionLanguageModel
from tasks.vqa import VQA
from tasks.zeroshot import ZeroShot

SAMPLES = 500
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


def _mean_score(task: ZeroShot | VQA, said: Sequence[Answer], samples: Sequence[Sample]) -> float:
    if errors := [answer.error for answer in said if answer.error is not None]:
        raise ValueError(f"{len(errors)} of {len(said)} answers count for nothing: {errors[0]}; train the model again")
    return sum(task.score(a.text, s) for a, s in zip(said, samples, strict=True)) / len(samples)
