"""Weights of open_clip's ViT image tower under the names of transformers' `CLIPVisionModel`."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

_ACTIVATIONS = {nn.GELU: "gelu"}


def vision_config(visual: Any) -> CLIPVisionConfig:
    """The configuration of a `CLIPVisionModel` of the same architecture as an open_clip `VisionTransformer`."""
    block = visual.transformer.resblocks[0]
    activation = type(block.mlp.gelu)
    return CLIPVisionConfig(
        hidden_size=visual.conv1.out_channels,
        intermediate_size=block.mlp.c_fc.out_features,
        num_hidden_layers=len(visual.transformer.resblocks),
        num_attention_heads=block.attn.num_heads,
        image_size=visual.image_size[0],
        patch_size=visual.patch_size[0],
        hidden_act=_ACTIVATIONS.get(activation, "quick_gelu"),
        projection_dim=visual.output_dim,
    )


def to_clip_vision_model(visual: Any) -> CLIPVisionModel:
    """A `CLIPVisionModel` with the weights of an open_clip `VisionTransformer`; the projection is left out."""
    model = CLIPVisionModel(vision_config(visual)).eval()
    prefix = "vision_model." if any(k.startswith("vision_model.") for k in model.state_dict()) else ""
    state = {prefix + name: tensor for name, tensor in _renamed(visual.state_dict()).items()}
    missing, surplus = model.load_state_dict(state, strict=False)
    if surplus or [name for name in missing if "position_ids" not in name]:
        raise ValueError(f"towers differ: missing {missing}, unknown {surplus}")
    return model


def _renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {
        "embeddings.class_embedding": state["class_embedding"],
        "embeddings.patch_embedding.weight": state["conv1.weight"],
        "embeddings.position_embedding.weight": state["positional_embedding"],
    }
    for ours, theirs in (("ln_pre", "pre_layrnorm"), ("ln_post", "post_layernorm")):
        for kind in ("weight", "bias"):
            renamed[f"{theirs}.{kind}"] = state[f"{ours}.{kind}"]
    block = 0
    while f"transformer.resblocks.{block}.ln_1.weight" in state:
        for kind in ("weight", "bias"):
            source, target = f"transformer.resblocks.{block}", f"encoder.layers.{block}"
            for ours, theirs in _BLOCK_NAMES.items():
                renamed[f"{target}.{theirs}.{kind}"] = state[f"{source}.{ours}.{kind}"]
            for name, part in zip("qkv", torch.chunk(state[f"{source}.attn.in_proj_{kind}"], 3), strict=True):
                renamed[f"{target}.self_attn.{name}_proj.{kind}"] = part.clone()
        block += 1
    return renamed


_BLOCK_NAMES = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
