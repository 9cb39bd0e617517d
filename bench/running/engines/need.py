"""What a run will need of a device's memory, from configurations alone: nothing is loaded.

An upper bound where one image is attacked at a time; more at once is what `bench.batch_size` finds out within the share
of the device that the run gets. Known for vision transformers, alone and inside LLaVA; other runs get a device for
themselves.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip

from bench.config import RunConfig, load_suite
from bench.errors import UsageError
from bench.models.encoders import catalogue
from bench.models.encoders.checkpoint import weights_files
from bench.models.encoders.shapes import TowerShapes
from bench.models.victims.llava.memory import Shapes, estimate
from bench.models.victims.memory import MARGIN
from bench.running.plugins import task_class
from bench.running.victims import vlm_of
from bench.trust.code import config_of, folder_of

FLOAT = 4  # bytes
PREFIX = 64  # tokens of a conversation that stand before the image


@dataclass(frozen=True)
class Tower:
    """A CLIP model's sizes: its image tower's, and the bytes of both towers."""

    shapes: TowerShapes
    patches: int
    weights: int

    @property
    def activations(self) -> int:
        """Bytes that one image keeps for its gradient."""
        places = self.patches + 1
        return self.shapes.blocks * places * (6 * self.shapes.width + self.shapes.mlp) * FLOAT + self.shapes.pixels


def need_of(config: RunConfig) -> int | None:
    """Bytes that a run needs at least; None where that is not known before it is loaded."""
    if config.surrogate is not None or config.precision != "float32" or config.tower != "encoder":
        return None
    try:
        tower = tower_of(config)
        if tower is None:
            return None
        if task_class(config.task).model == "encoder":
            return round(MARGIN * (tower.weights + (config.batch_size or 1) * tower.activations))
        return _inside_llava(catalogue.resolve_path(vlm_of(config)), tower, config.batch_size or 1)
    except (UsageError, OSError, LookupError, TypeError, ValueError):
        return None  # the run itself says what is wrong


def tower_of(config: RunConfig) -> Tower | None:
    """The sizes of a run's encoder; None if it is no vision transformer, or not known by its configuration."""
    described = _described(config)
    vision, text = (described.get(name, {}) for name in ("vision_cfg", "text_cfg"))
    if not isinstance(vision.get("layers"), int) or "patch_size" not in vision or "timm_model_name" in vision:
        return None
    width, blocks = vision["width"], vision["layers"]
    hidden = round(vision.get("mlp_ratio", 4.0) * width)
    patches = (vision["image_size"] // vision["patch_size"]) ** 2
    numbers = blocks * (4 * width + 2 * hidden) * width + 12 * text["layers"] * text["width"] ** 2
    numbers += text["vocab_size"] * text["width"] + 3 * vision["patch_size"] ** 2 * width
    return Tower(TowerShapes(blocks, width, 2 * hidden, pixels=0), patches, FLOAT * numbers)


def _described(config: RunConfig) -> Mapping[str, Any]:
    """open_clip's description of a run's encoder; empty if none is at hand."""
    rows = catalogue.rows(load_suite(config.suite).encoders)
    row = rows.get(config.encoder)
    if row is not None and row.base is not None:
        row = rows[row.base]
    if row is not None and row.model is not None:
        file = Path(catalogue.resolve_path(row.model)) / "open_clip_config.json"
        return dict(json.loads(file.read_text())["model_cfg"])
    architecture = config.arch.partition(",")[0] if config.arch else (row.architecture if row is not None else None)
    return (open_clip.get_model_config(architecture) if architecture else None) or {}


def _inside_llava(place: str, tower: Tower, batch: int) -> int | None:
    """What an attack on a LLaVA around the tower needs: with activation checkpointing, if it comes to that."""
    described, folder = config_of(place), folder_of(place)
    if described.get("model_type") != "llava" or folder is None:
        return None
    weights = tower.weights + sum(file.stat().st_size for file in weights_files(folder))
    return estimate(shapes_of(described, tower, weights), batch, checkpointing=True).total


def shapes_of(described: Mapping[str, Any], tower: Tower, weights: int) -> Shapes:
    """What the memory of a LLaVA depends on, from its config.json and the tower that is put into it."""
    text = described["text_config"]
    heads, width = text["num_attention_heads"], text["hidden_size"]
    queries = (text.get("head_dim") or width // heads) * heads
    return Shapes(
        blocks=text["num_hidden_layers"],
        width=width,
        attention=queries,
        keys=queries,
        mlp=text["intermediate_size"],
        vocabulary=text["vocab_size"],
        tower=tower.shapes,
        patches=tower.patches,
        prefix=PREFIX,
        reads_last=text.get("model_type") == "llama",
        weights=weights,
        stored=2 if described.get("dtype", described.get("torch_dtype")) in ("float16", "bfloat16") else FLOAT,
        compute=FLOAT,
    )
