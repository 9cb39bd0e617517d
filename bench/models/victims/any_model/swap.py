"""An encoder's weights in the image tower of any model, where that is a ViT of CLIP or SigLIP of the same shape."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from transformers import CLIPVisionModel, SiglipVisionModel

from bench.errors import UsageError
from bench.models.encoders.convert import to_clip_vision_model
from bench.models.encoders.encoder import Encoder

SHAPE = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "patch_size", "hidden_act")
POSITIONS = "embeddings.position_embedding.weight"
CLOSE = 1e-3  # relative difference of features that rounding may make
_TIMM_BLOCK = {
    "norm1": "layer_norm1",
    "attn.proj": "self_attn.out_proj",
    "norm2": "layer_norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_TIMM = {"patch_embed.proj": "embeddings.patch_embedding", "norm": "post_layernorm"}


def swap_tower(model: nn.Module, encoder: Encoder, image_processor: Any, place: str) -> str:
    """Give a model's image tower the weights of an encoder; returns what was done beside, in words.

    The tower reads the model's own pixels: an encoder of another image size gets its position embeddings interpolated.

    Raises:
        UsageError: the model's tower is none of CLIP or SigLIP, or the encoder has another shape; names what differs.
    """
    tower = next((m for m in model.modules() if isinstance(m, CLIPVisionModel | SiglipVisionModel)), None)
    if tower is None:
        raise UsageError(
            f"{place}: its image tower is no ViT of CLIP or SigLIP, which alone an encoder can replace; leave "
            "--encoder out, or give --tower native"
        )
    _check_normalisation(encoder, image_processor, place)
    if isinstance(tower, CLIPVisionModel):
        return _swap_clip(tower, encoder, place)
    return _swap_siglip(tower, encoder, place)


def _check_normalisation(encoder: Encoder, image_processor: Any, place: str) -> None:
    for name, ours in (("mean", encoder.preprocessing.mean), ("std", encoder.preprocessing.std)):
        theirs = getattr(image_processor, f"image_{name}", None) or ()
        if len(theirs) != len(ours) or max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) > 1e-4:
            raise UsageError(f"{place}: its image processor normalises with {name} {theirs}, the encoder with {ours}")


def _swap_clip(tower: Any, encoder: Encoder, place: str) -> str:
    given: Any = to_clip_vision_model(encoder.visual)
    for key in SHAPE:
        ours, theirs = getattr(given.config, key), getattr(tower.config, key)
        if ours != theirs:
            raise UsageError(f"{place}: its image tower has {key} {theirs}, the encoder {ours}; choose one that fits")
    state, said = given.state_dict(), ""
    name = next(key for key in state if key.endswith(POSITIONS))
    places = tower.state_dict()[name].shape[0]
    if len(state[name]) != places:
        state[name], said = _interpolated(state[name], places)
    tower.load_state_dict(state)
    return said


def _interpolated(table: Tensor, places: int) -> tuple[Tensor, str]:
    """Position embeddings (1 + n n, W), the class token's first, for another number of places, and what was done."""
    old, new = round((len(table) - 1) ** 0.5), round((places - 1) ** 0.5)
    grid = table[1:].T.reshape(1, -1, old, old)
    grid = interpolate(grid, (new, new), mode="bicubic", align_corners=False, antialias=False)
    said = f"position embeddings interpolated from {old}x{old} to {new}x{new}"
    return torch.cat([table[:1], grid[0].flatten(1).T]), said


def _swap_siglip(tower: Any, encoder: Encoder, place: str) -> str:
    """SigLIP's towers are timm's in open_clip; whether they compute the same is seen from their features."""
    trunk: Any = getattr(encoder.visual, "trunk", None)
    if not hasattr(trunk, "blocks") or not hasattr(trunk, "pos_embed"):
        kind = type(encoder.visual).__name__
        raise UsageError(f"{place}: its image tower is a SigLIP ViT, the encoder's a {kind}; choose a SigLIP encoder")
    own, prefix = tower.state_dict(), _prefix(tower.state_dict())
    given = {prefix + name: value for name, value in _of_timm(trunk.state_dict(), len(trunk.blocks)).items()}
    needed = [name for name in own if not name.startswith(f"{prefix}head.")]
    misfits = [name for name in needed if name not in given or given[name].shape != own[name].shape]
    if misfits or len(trunk.blocks) != tower.config.num_hidden_layers:
        raise UsageError(
            f"{place}: the encoder's tower has another shape than its own ({misfits[:3] or 'more blocks'}); choose one "
            "that fits"
        )
    tower.load_state_dict(given, strict=False)
    _check_features(tower, trunk, encoder.preprocessing.size, place)
    return ""


def _of_timm(state: dict[str, Tensor], blocks: int) -> dict[str, Tensor]:
    """The state of a timm ViT under the names of transformers' `SiglipVisionModel`, its pooling left out."""
    renamed = {POSITIONS: state["pos_embed"][0]}
    for ours, theirs in _TIMM.items():
        renamed |= {f"{theirs}.{kind}": state[f"{ours}.{kind}"] for kind in ("weight", "bias")}
    for block, kind in ((b, k) for b in range(blocks) for k in ("weight", "bias")):
        source, target = f"blocks.{block}", f"encoder.layers.{block}"
        for ours, theirs in _TIMM_BLOCK.items():
            renamed[f"{target}.{theirs}.{kind}"] = state[f"{source}.{ours}.{kind}"]
        for name, part in zip("qkv", torch.chunk(state[f"{source}.attn.qkv.{kind}"], 3), strict=True):
            renamed[f"{target}.self_attn.{name}_proj.{kind}"] = part.clone()
    return renamed


def _prefix(names: Sequence[str] | dict[str, Tensor]) -> str:
    """Of a tower's tensors in this release of transformers."""
    return "vision_model." if any(name.startswith("vision_model.") for name in names) else ""


@torch.no_grad()
def _check_features(tower: Any, trunk: Any, size: int, place: str) -> None:
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    wanted = trunk.forward_features(image.to(trunk.pos_embed.device)).to(tower.device)
    found = tower(image.to(tower.device)).last_hidden_state
    if wanted.shape != found.shape or float((wanted - found).norm() / wanted.norm()) > CLOSE:
        raise UsageError(
            f"{place}: its image tower does not compute what the encoder's does with the same weights (another "
            "activation?); choose an encoder of its own kind"
        )
