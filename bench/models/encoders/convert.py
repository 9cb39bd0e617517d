"""The same CLIP in open_clip's and in transformers' terms: exact conversion of image towers and whole models.

Only the names and the packing of weights differ: open_clip keeps the three attention projections in one matrix and
multiplies by the projection's transpose. Both ways, same pixels give the same tokens and pooled outputs.
"""

from functools import partial
from typing import Any

import open_clip
import torch
from open_clip.transformer import LayerNorm, QuickGELU, VisionTransformer
from torch import Tensor, nn
from transformers import CLIPModel, CLIPVisionConfig, CLIPVisionModel

from bench.errors import UsageError

_BLOCK_NAMES = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_VISION_NAMES = {
    "class_embedding": "embeddings.class_embedding",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_pre.weight": "pre_layrnorm.weight",
    "ln_pre.bias": "pre_layrnorm.bias",
    "ln_post.weight": "post_layernorm.weight",
    "ln_post.bias": "post_layernorm.bias",
}
_TEXT_NAMES = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
_MODULES: dict[str, Any] = {"gelu": nn.GELU, "quick_gelu": QuickGELU, "gelu_pytorch_tanh": partial(nn.GELU, "tanh")}


def activation_of(visual: Any) -> str | None:
    """Transformers' name of the activation in an open_clip tower's blocks; None where it cannot be told."""
    if not isinstance(visual, VisionTransformer):
        return None
    module = getattr(visual.transformer.resblocks[0].mlp, "gelu", None)
    if isinstance(module, QuickGELU):
        return "quick_gelu"
    if isinstance(module, nn.GELU):
        return "gelu" if module.approximate == "none" else "gelu_pytorch_tanh"
    return None


# ---- open_clip -> transformers ---------------------------------------------------------------------------------------


def vision_config(visual: Any) -> CLIPVisionConfig:
    """The configuration of a `CLIPVisionModel` of the same architecture as an open_clip `VisionTransformer`.

    Raises:
        UsageError: the tower has parts that `CLIPVisionModel` does not know.
    """
    if problem := _foreign_parts(visual):
        raise UsageError(f"this image tower has no equal among transformers' CLIPVisionModels: {problem}")
    block = visual.transformer.resblocks[0]
    return CLIPVisionConfig(
        hidden_size=visual.conv1.out_channels,
        intermediate_size=block.mlp.c_fc.out_features,
        num_hidden_layers=len(visual.transformer.resblocks),
        num_attention_heads=block.attn.num_heads,
        image_size=visual.image_size[0],
        patch_size=visual.patch_size[0],
        hidden_act=str(activation_of(visual)),
        layer_norm_eps=visual.ln_post.eps,
        projection_dim=visual.output_dim,
    )


def _foreign_parts(visual: Any) -> str | None:
    if not isinstance(visual, VisionTransformer):
        return f"it is a {type(visual).__name__}"
    if visual.image_size[0] != visual.image_size[1] or visual.patch_size[0] != visual.patch_size[1]:
        return "its images or patches are not square"
    if visual.attn_pool is not None or visual.pool_type != "tok" or visual.final_ln_after_pool:
        return "it does not pool by the class token after a final norm"
    if isinstance(visual.ln_pre, nn.Identity):
        return "it has no norm before the blocks"
    known = {f"{ours}.{kind}" for ours in _BLOCK_NAMES for kind in ("weight", "bias")}
    names = set(visual.transformer.resblocks[0].state_dict()) - known
    if surplus := sorted(names - {"attn.in_proj_weight", "attn.in_proj_bias"}):
        return f"its blocks have {surplus[:3]}"
    if activation_of(visual) is None:
        return "its activation is unknown"
    return None


def to_clip_vision_model(visual: Any) -> CLIPVisionModel:
    """A `CLIPVisionModel` with the weights of an open_clip `VisionTransformer`; the projection is left out.

    Raises:
        UsageError: see `vision_config`.
    """
    model: Any = CLIPVisionModel(vision_config(visual))
    state = _to_transformers(visual.state_dict(), _VISION_NAMES)
    prefix = _prefix(model.state_dict(), "vision_model.")
    model.load_state_dict({prefix + name: tensor for name, tensor in state.items()})
    filled: CLIPVisionModel = model.eval()
    return filled


def _to_transformers(state: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    renamed = {theirs: state[ours] for ours, theirs in names.items()}
    block = 0
    while (source := f"transformer.resblocks.{block}") + ".ln_1.weight" in state:
        target = f"encoder.layers.{block}"
        for kind in ("weight", "bias"):
            for ours, theirs in _BLOCK_NAMES.items():
                renamed[f"{target}.{theirs}.{kind}"] = state[f"{source}.{ours}.{kind}"]
            for name, part in zip("qkv", torch.chunk(state[f"{source}.attn.in_proj_{kind}"], 3), strict=True):
                renamed[f"{target}.self_attn.{name}_proj.{kind}"] = part.clone()
        block += 1
    return renamed


# ---- transformers -> open_clip ---------------------------------------------------------------------------------------


def to_open_clip_tower(model: Any, projection: Tensor | None = None) -> VisionTransformer:
    """An open_clip `VisionTransformer` with the weights of a `CLIPVisionModel`, with or without projection.

    Args:
        model: `CLIPVisionModel` or `CLIPVisionModelWithProjection`.
        projection: (W, D) for a model that has none of its own.

    Raises:
        UsageError: an activation that open_clip has no module for, or a projection of another width.
    """
    config, state = model.config, model.state_dict()
    own = state.get("visual_projection.weight")
    projection = own.T if own is not None else projection
    if projection is None or projection.shape[0] != config.hidden_size:
        shape = None if projection is None else tuple(projection.shape)
        raise UsageError(f"an image tower of width {config.hidden_size} needs a projection to match, got {shape}")
    visual = VisionTransformer(
        image_size=config.image_size,
        patch_size=config.patch_size,
        width=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        mlp_ratio=_mlp_ratio(config),
        output_dim=projection.shape[1],
        act_layer=_activation_module(config.hidden_act),
        norm_layer=partial(LayerNorm, eps=config.layer_norm_eps),
    )
    tower = _to_open_clip(_below(state, _prefix(state, "vision_model.")), _VISION_NAMES)
    visual.load_state_dict(tower | {"proj": projection.contiguous()})
    return visual.eval()


def to_open_clip(model: CLIPModel) -> open_clip.CLIP:
    """An open_clip `CLIP`, both towers, with the weights of a transformers `CLIPModel`.

    Raises:
        UsageError: the towers' activations or norms differ, or open_clip has no module for them.
    """
    vision: Any = model.config.vision_config
    text: Any = model.config.text_config
    state = model.state_dict()
    if (vision.hidden_act, vision.layer_norm_eps) != (text.hidden_act, text.layer_norm_eps):
        raise UsageError("the image and text towers differ in hidden_act or layer_norm_eps; open_clip has one of each")
    _activation_module(vision.hidden_act)
    norm = {"eps": vision.layer_norm_eps}
    clip = open_clip.CLIP(
        embed_dim=model.config.projection_dim,
        quick_gelu=vision.hidden_act == "quick_gelu",
        vision_cfg={
            "layers": vision.num_hidden_layers,
            "width": vision.hidden_size,
            "patch_size": vision.patch_size,
            "head_width": vision.hidden_size // vision.num_attention_heads,
            "mlp_ratio": _mlp_ratio(vision),
            "image_size": vision.image_size,
            "norm_kwargs": norm,
            "act_kwargs": _activation_options(vision),
        },
        text_cfg={
            "layers": text.num_hidden_layers,
            "width": text.hidden_size,
            "heads": text.num_attention_heads,
            "mlp_ratio": _mlp_ratio(text),
            "context_length": text.max_position_embeddings,
            "vocab_size": text.vocab_size,
            "norm_kwargs": norm,
            "act_kwargs": _activation_options(text),
            **_text_pooling(text),
        },
    )
    image = _to_open_clip(_below(state, "vision_model."), _VISION_NAMES)
    image["proj"] = state["visual_projection.weight"].T.contiguous()
    words = _to_open_clip(_below(state, "text_model."), _TEXT_NAMES)
    words["text_projection"] = state["text_projection.weight"].T.contiguous()
    words["logit_scale"] = state["logit_scale"].reshape(clip.logit_scale.shape)
    clip.load_state_dict(words | {f"visual.{name}": tensor for name, tensor in image.items()})
    return clip.eval()


def _text_pooling(config: Any) -> dict[str, Any]:
    """Which token's output is the text's: transformers takes the first end token; 2 stands for the highest id."""
    if config.eos_token_id in (2, config.vocab_size - 1):
        return {"pool_type": "argmax"}
    return {"pool_type": "eos", "eos_id": config.eos_token_id}


def _activation_options(config: Any) -> dict[str, str] | None:
    return {"approximate": "tanh"} if config.hidden_act == "gelu_pytorch_tanh" else None


def _activation_module(name: str) -> Any:
    if name not in _MODULES:
        raise UsageError(f"open_clip has no activation {name!r}; known: {', '.join(_MODULES)}")
    return _MODULES[name]


def _mlp_ratio(config: Any) -> float:
    """Half a unit above the quotient: open_clip rounds its product with the width down."""
    return float((config.intermediate_size + 0.5) / config.hidden_size)


def _to_open_clip(state: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    renamed = {ours: state[theirs] for ours, theirs in names.items()}
    block = 0
    while (source := f"encoder.layers.{block}") + ".layer_norm1.weight" in state:
        target = f"transformer.resblocks.{block}"
        for kind in ("weight", "bias"):
            for ours, theirs in _BLOCK_NAMES.items():
                renamed[f"{target}.{ours}.{kind}"] = state[f"{source}.{theirs}.{kind}"]
            parts = [state[f"{source}.self_attn.{name}_proj.{kind}"] for name in "qkv"]
            renamed[f"{target}.attn.in_proj_{kind}"] = torch.cat(parts)
        block += 1
    return renamed


def _prefix(state: dict[str, Tensor], prefix: str) -> str:
    """The prefix, if this release of transformers has it."""
    return prefix if any(name.startswith(prefix) for name in state) else ""


def _below(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
