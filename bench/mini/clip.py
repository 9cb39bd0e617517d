"""The recipe of the miniature CLIP, and the files it is shipped as."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from bench.mini import language, world
from bench.mini.tokenizer import clip_tokenizer
from bench.train.loop import fit, step_generator
from bench.train.schedule import Schedule

MEAN, STD = (0.5, 0.5, 0.5), (0.15, 0.15, 0.15)
CONTEXT = 24
SCHEDULE = Schedule(
    steps=2400, batch=256, learning_rate=1.2e-3, warmup=100, weight_decay=0.05, betas=(0.9, 0.98), clip_norm=1.0
)
IMAGES = 102_400  # six epochs
CAPTIONS = 6


def model_config() -> dict[str, Any]:
    """open_clip's model configuration of the miniature."""
    tokenizer = clip_tokenizer()
    return {
        "embed_dim": 96,
        "vision_cfg": {"image_size": world.IMAGE_SIZE, "patch_size": 16, "width": 128, "layers": 6, "head_width": 32},
        "text_cfg": {
            "context_length": CONTEXT,
            "vocab_size": len(tokenizer),
            "width": 96,
            "heads": 3,
            "layers": 2,
            "hf_tokenizer_name": "tokenizer.json beside this file",
        },
    }


def new_model() -> CLIP:
    """The untrained miniature CLIP."""
    config = model_config()
    text = {k: v for k, v in config["text_cfg"].items() if k != "hf_tokenizer_name"}
    return CLIP(config["embed_dim"], config["vision_cfg"], text)


def normalise(images: np.ndarray | Tensor) -> Tensor:
    """(N, 48, 48, 3) uint8 -> (N, 3, 48, 48) float32, standardised."""
    pixels = torch.as_tensor(images).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


def train(directory: Path, *, seed: int = 0, schedule: Schedule = SCHEDULE, images: int = IMAGES) -> CLIP:
    """Train the miniature CLIP contrastively on captioned scenes.

    Texts that read the same inside a batch are all positives of their images: with a small world, a batch holds many.
    """
    pixels, texts = _captioned(images, seed)
    torch.manual_seed(seed)
    model = new_model().train()
    per_epoch = images // schedule.batch

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        epoch, position = divmod(step, per_epoch)
        order = torch.randperm(images, generator=step_generator(seed, -1 - epoch))
        rows = order[position * schedule.batch : (position + 1) * schedule.batch]
        choice = torch.randint(CAPTIONS, (len(rows),), generator=step_generator(seed, step))
        tokens = texts[rows, choice].long()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            image = model.encode_image(normalise(pixels[rows]), normalize=True)
            text = model.encode_text(tokens, normalize=True)
        logits = model.logit_scale.exp().clamp(max=100) * image.float() @ text.float().T
        same = (tokens[:, None] == tokens[None]).all(-1).float()
        target = same / same.sum(1, keepdim=True)
        loss = (nn.functional.cross_entropy(logits, target) + nn.functional.cross_entropy(logits.T, target)) / 2
        return loss, {"scale": model.logit_scale.exp().item()}

    fit(
        "clip",
        {"clip": model},
        loss_of_step,
        schedule,
        directory,
        settings={"seed": seed, "images": images, "world": world.WORLD_VERSION, "contrast": world.CONTRAST},
    )
    return model.eval()


def _captioned(count: int, seed: int) -> tuple[Tensor, Tensor]:
    tokenizer, rng = clip_tokenizer(), random.Random(seed)
    pixels, texts = [], []
    for start in tqdm(range(0, count, world.BLOCK), desc="scenes", mininterval=5, disable=None):
        scenes = world.draw_scenes("train", min(world.BLOCK, count - start), start=start)
        pixels.append(torch.from_numpy(world.render(scenes)))
        for index in range(len(scenes)):
            texts.extend(language.captions(scenes, index, rng, CAPTIONS))
    tokens = tokenizer(texts, padding="max_length", truncation=True, max_length=CONTEXT, return_tensors="pt").input_ids
    return torch.cat(pixels), tokens.to(torch.int16).view(count, CAPTIONS, CONTEXT)


def export(model: CLIP, directory: Path) -> None:
    """Write an open_clip hub folder: configuration, half-precision weights, tokenizer."""
    directory.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": model_config(), "preprocess_cfg": {"mean": MEAN, "std": STD, "interpolation": "bicubic"}}
    (directory / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    weights = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, directory / "open_clip_model.safetensors")
    clip_tokenizer().save_pretrained(directory)
