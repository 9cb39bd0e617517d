"""The whole path through the command line: a folder, pictures of two sizes, both tasks, clean and attacked."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from click.testing import CliRunner

from bench.cli import main
from bench.models.victims.any_model.load import load_any_model
from bench.models.victims.any_model.pixels import pil

SIZES = [(40, 52), (40, 52), (32, 48)]
PROMPTS = {"vqa": "what is it? Be brief.", "captioning": "say what the image shows"}
SPECS = {"vqa": "prompt_suffix=%20Be%20brief.", "captioning": "prompt=say%20what%20the%20image%20shows"}
NEW_TOKENS = 6
SUITE = """
base = "mini"
about = "three pictures of two sizes"
eps = [16]

[attacks.few]
description = "a few steps of APGD"

[[attacks.few.steps]]
name = "apgd"
kind = "apgd"
steps = 5
goal = "untargeted"
start = "random"
first_step = 2

[attacks.features]
description = "a few steps away from the model's own view"

[[attacks.features.steps]]
name = "embedding"
kind = "apgd"
steps = 3
goal = "embedding"
start = "random"
first_step = 2
"""


def pictures() -> list[torch.Tensor]:
    """Random pictures (3, H, W) of 8-bit values."""
    generator = torch.Generator().manual_seed(8)
    return [(torch.rand(3, *size, generator=generator) * 255).round() / 255 for size in SIZES]


def write_data(checkpoint: Path, folder: Path) -> Path:
    """A suite file and a table for each task, whose right answers are what the model says of the clean pictures."""
    folder.mkdir(exist_ok=True)
    (folder / "own.toml").write_text(SUITE)
    victim, shown = load_any_model(str(checkpoint), None), pictures()
    for task, prompt in PROMPTS.items():
        said = [victim.generate(one[None], [prompt], max_new_tokens=NEW_TOKENS)[0].text for one in shown]
        rows: dict[str, Sequence[Any]] = {"image": [{"bytes": _png(one), "path": None} for one in shown]}
        if task == "vqa":
            rows |= {"question": [prompt.removesuffix(" Be brief.")] * 3, "answers": [[text] * 10 for text in said]}
        else:
            rows |= {"captions": [[text] * 5 for text in said[:2]] + [["a lone zebra"] * 5]}
        table = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
        table.to_parquet(folder / f"{task}.parquet")
    return folder / "own.toml"


def _png(image: torch.Tensor) -> bytes:
    target = io.BytesIO()
    pil(image).save(target, "PNG")
    return target.getvalue()


def walk(checkpoint: Path, folder: Path, tasks: Sequence[str] = tuple(PROMPTS), *more: str) -> list[dict[str, Any]]:
    """What `bench run --json` says of a checkpoint on the tables in a folder, one entry per radius and task."""
    suite = write_data(checkpoint, folder)
    found: list[dict[str, Any]] = []
    for task in tasks:
        spec = f"parquet:{folder / f'{task}.parquet'}?{SPECS[task]}&max_new_tokens={NEW_TOKENS}"
        options = ["--suite", str(suite), "--task", task, "--dataset", spec, "--attack", "few", "--device", "cpu"]
        options += ["--output", str(folder / "runs"), "--json", "--jobs", "1", "--quiet", *more]
        result = CliRunner().invoke(main, ["run", "--vlm", f"transformers:{checkpoint}", *options])
        if result.exit_code:
            raise RuntimeError(f"{task}: exit code {result.exit_code}: {result.output} {result.stderr}")
        found += json.loads(result.stdout)
    return found
