"""The fixture's models, and what the original code says of them (see fixture/README.md)."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from open_clip.transformer import QuickGELU, VisionTransformer
from safetensors.torch import load_file

from bench.models.encoders.encoder import Encoder, Preprocessing, TextTower
from bench.models.victims.openflamingo import checkpoint
from bench.models.victims.openflamingo.language import family_of
from bench.models.victims.openflamingo.model import OpenFlamingo, load_openflamingo
from bench.models.victims.openflamingo.vocabulary import read_vocabulary

HERE = Path(__file__).parent
FIXTURE = HERE / "fixture"
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@cache
def expected() -> dict[str, Any]:
    return json.loads((FIXTURE / "expected.json").read_text())


@cache
def tensors() -> dict[str, torch.Tensor]:
    return load_file(FIXTURE / "expected.safetensors")


VARIANTS = tuple(expected()["variants"])


def encoder() -> Encoder:
    """The fixture's, with its weights."""
    config = json.loads((FIXTURE / "open_clip_config.json").read_text())
    vision = config["vision_cfg"]
    heads = vision["width"] // vision["head_width"]
    found = tower(
        vision["image_size"], vision["patch_size"], vision["width"], vision["layers"], heads, config["embed_dim"]
    )
    visual = found.visual
    visual.load_state_dict(load_file(FIXTURE / "vision.safetensors"))
    return found


def tower(size: int, patch: int, width: int, layers: int, heads: int, projected: int) -> Encoder:
    visual = VisionTransformer(
        size, patch, width, layers, heads, mlp_ratio=4.0, output_dim=projected, act_layer=QuickGELU
    )
    return Encoder(visual, Preprocessing(size, CLIP_MEAN, CLIP_STD), TextTower(torch.nn.Identity(), None))


def images() -> torch.Tensor:
    """(3, 3, H, W) in [0, 1]."""
    return load_file(FIXTURE / "images.safetensors")["images"].float() / 255


def state(variant: str) -> dict[str, torch.Tensor]:
    """The released checkpoint of a variant."""
    facts = expected()["variants"][variant]
    parts = load_file(FIXTURE / "perceiver.safetensors") | load_file(FIXTURE / f"checkpoint-{facts['lm']}.safetensors")
    return {name: parts[name] for name in facts["checkpoint_keys"]}


def language(variant: str, folder: Path) -> Path:
    """A folder of the variant's language model with its tokenizer, as on the hub."""
    target = folder / f"language-{variant}"
    if not target.is_dir():
        target.mkdir(parents=True)
        for file in (FIXTURE / f"lm-{expected()['variants'][variant]['lm']}", FIXTURE / "tokenizer"):
            for entry in file.iterdir():
                (target / entry.name).symlink_to(entry)
    return target


def load(variant: str, folder: Path, **options: Any) -> OpenFlamingo:
    path = folder / f"{variant}.pt"
    torch.save(state(variant), path)
    return load_openflamingo(str(path), str(language(variant, folder)), encoder(), **options)


CONFIGS: dict[str, dict[str, Any]] = {
    "mpt": {"model_type": "mpt", "d_model": 96, "n_heads": 6, "n_layers": 6, "vocab_size": 160, "max_seq_len": 256},
    "mpt1b": {
        "model_type": "mosaic_gpt",
        "d_model": 96,
        "n_heads": 6,
        "n_layers": 6,
        "vocab_size": 160,
        "max_seq_len": 256,
        "attn_qk_ln": True,
    },
    "neox": {
        "model_type": "gpt_neox",
        "hidden_size": 96,
        "num_attention_heads": 6,
        "num_hidden_layers": 6,
        "intermediate_size": 384,
        "vocab_size": 160,
        "max_position_embeddings": 256,
        "use_parallel_residual": False,
    },
}


def random_model(kind: str, *, every: int = 2, seed: int = 0) -> OpenFlamingo:
    """Of other sizes than the fixture's: a perceiver of one layer beside a larger language model."""
    torch.manual_seed(seed)
    family, config = family_of(CONFIGS[kind], kind)
    language: Any = family.kind(config)
    sizes = checkpoint.Architecture(16, 8, 1, 128, 32, every, 192, 80)
    vocabulary = read_vocabulary(str(FIXTURE / "tokenizer"))
    perceiver = checkpoint.build(language, family, sizes, len(vocabulary))
    for parameter in (*perceiver.parameters(), *language.parameters()):
        torch.nn.init.normal_(parameter, mean=1.0 if parameter.dim() == 1 else 0.0, std=0.2)
    return OpenFlamingo(encoder(), perceiver, language, family, vocabulary)
