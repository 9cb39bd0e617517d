"""Small SigLIPs on random weights in timm's format on the hub, and the same weights in transformers' own model."""

import json
from pathlib import Path
from typing import Any

import open_clip
import timm.models
import torch
from open_clip.push_to_hf_hub import save_config_for_hf
from safetensors.torch import save_file
from timm.models import vision_transformer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import SiglipConfig, SiglipModel

from tests.bench.models.checkpoints import randomise

SIZE, PATCH, WIDTH, DEPTH, HEADS, LENGTH = 32, 8, 32, 3, 2, 12
WORDS = ["a", "photo", "of", "red", "blue", "star", "ring", "circle"]
SPECIAL = {"siglip": ["<unk>", "</s>"], "siglip2": ["<pad>", "<eos>", "<bos>", "<unk>"]}
PIXELS = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}


@timm.models.register_model
def tiny_siglip(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """timm's `vit_base_patch16_siglip_224` in small, made by the same function with the same arguments."""
    sizes = {"img_size": SIZE, "patch_size": PATCH, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS}
    options = {**sizes, "class_token": False, "global_pool": "map", **kwargs}
    return vision_transformer._create_vision_transformer(
        "vit_base_patch16_siglip_224", pretrained=pretrained, **options
    )


def config(kind: str) -> dict[str, Any]:
    """open_clip's ``ViT-B-16-SigLIP`` or ``ViT-B-16-SigLIP2-256`` with its sizes shrunk."""
    name = {"siglip": "ViT-B-16-SigLIP", "siglip2": "ViT-B-16-SigLIP2-256"}[kind]
    found: dict[str, Any] = json.loads(json.dumps(open_clip.get_model_config(name)))
    found["embed_dim"] = WIDTH
    found["vision_cfg"] |= {"image_size": SIZE, "timm_model_name": "tiny_siglip"}
    words = len(SPECIAL[kind]) + len(WORDS)
    found["text_cfg"] |= {"context_length": LENGTH, "vocab_size": words, "width": WIDTH, "heads": HEADS, "layers": 2}
    return found


def folder(path: Path, kind: str = "siglip", seed: int = 0) -> nn.Module:
    """What a hub repository timm/ViT-...-SigLIP... holds; returns the model in it."""
    path.mkdir(parents=True, exist_ok=True)
    described = config(kind)
    built = {key: value for key, value in described.items() if key != "custom_text"}
    model = randomise(open_clip.CustomTextCLIP(**built), seed)
    with torch.no_grad():
        model.logit_scale.fill_(2.0)
        model.logit_bias.fill_(-7.5)
    open_clip.model.set_model_preprocess_cfg(model, {"size": [SIZE, SIZE], "mode": "RGB", **PIXELS})
    save_file(model.state_dict(), path / "open_clip_model.safetensors")
    save_config_for_hf(model, path / "open_clip_config.json", model_config=described)
    _tokenizer(path, kind)
    return model


def _tokenizer(path: Path, kind: str) -> None:
    """As T5's (SigLIP: padded with </s>) or as Gemma's (SigLIP 2: padded with <pad>); no word in front, </s> behind."""
    special, end = SPECIAL[kind], {"siglip": "</s>", "siglip2": "<eos>"}[kind]
    pieces = [*special, *("▁" + word for word in WORDS)]
    if kind == "siglip":
        tokenizer = Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=0))
    else:
        tokenizer = Tokenizer(models.WordLevel({piece: k for k, piece in enumerate(pieces)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {end}", special_tokens=[(end, 1)])
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(path / "tokenizer.json"))
    pad = {"siglip": "</s>", "siglip2": "<pad>"}[kind]
    told = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": pad, "eos_token": end, "unk_token": "<unk>"}
    (path / "tokenizer_config.json").write_text(json.dumps(told))


# ---- The same weights in transformers' model -------------------------------------------------------------------------


def in_transformers(model: Any, kind: str) -> SiglipModel:
    """transformers' `SiglipModel` with the weights of an open_clip SigLIP."""
    sizes = {"hidden_size": WIDTH, "num_attention_heads": HEADS, "intermediate_size": 4 * WIDTH}
    words = len(SPECIAL[kind]) + len(WORDS)
    text = {"num_hidden_layers": 2, "vocab_size": words, "max_position_embeddings": LENGTH, "projection_size": WIDTH}
    act = {"siglip": "gelu", "siglip2": "gelu_pytorch_tanh"}[kind]
    vision = {"num_hidden_layers": DEPTH, "image_size": SIZE, "patch_size": PATCH, "hidden_act": "gelu"}
    theirs = SiglipModel(SiglipConfig(text_config={**sizes, **text, "hidden_act": act}, vision_config=sizes | vision))
    state = _vision(model.visual.trunk.state_dict()) | _text(model.text.state_dict())
    state |= {"logit_scale": model.logit_scale.reshape(1), "logit_bias": model.logit_bias.reshape(1)}
    theirs.load_state_dict(state)
    return theirs.eval()


def _renamed(state: dict[str, Tensor], names: dict[str, str], source: str, target: str) -> dict[str, Tensor]:
    return {
        f"{target}{theirs}.{kind}": state[f"{source}{ours}.{kind}"]
        for ours, theirs in names.items()
        for kind in ("weight", "bias")
    }


def _split(state: dict[str, Tensor], ours: str, target: str) -> dict[str, Tensor]:
    """Queries, keys and values out of one matrix."""
    return {
        f"{target}self_attn.{name}_proj.{kind}": part.clone()
        for kind in ("weight", "bias")
        for name, part in zip("qkv", state[ours.replace("KIND", kind)].chunk(3), strict=True)
    }


def _vision(state: dict[str, Tensor]) -> dict[str, Tensor]:
    found = _renamed(state, {"patch_embed.proj": "patch_embedding"}, "", "vision_model.embeddings.")
    found["vision_model.embeddings.position_embedding.weight"] = state["pos_embed"][0]
    names = {"norm1": "layer_norm1", "norm2": "layer_norm2", "attn.proj": "self_attn.out_proj"}
    names |= {"mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
    for k in range(DEPTH):
        target = f"vision_model.encoder.layers.{k}."
        found |= _renamed(state, names, f"blocks.{k}.", target)
        found |= _split(state, f"blocks.{k}.attn.qkv.KIND", target)
    found |= _renamed(state, {"norm": "post_layernorm"}, "", "vision_model.")
    head = {"norm": "layernorm", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2", "proj": "attention.out_proj"}
    found |= _renamed(state, head, "attn_pool.", "vision_model.head.")
    found["vision_model.head.probe"] = state["attn_pool.latent"]
    for kind in ("weight", "bias"):
        parts = [state[f"attn_pool.{name}.{kind}"] for name in ("q", "kv")]
        found[f"vision_model.head.attention.in_proj_{kind}"] = torch.cat(parts)
    return found


def _text(state: dict[str, Tensor]) -> dict[str, Tensor]:
    embeddings = "text_model.embeddings."
    found = {f"{embeddings}token_embedding.weight": state["token_embedding.weight"]}
    found[f"{embeddings}position_embedding.weight"] = state["positional_embedding"]
    names = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj"}
    names |= {"mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    for k in range(2):
        target = f"text_model.encoder.layers.{k}."
        found |= _renamed(state, names, f"transformer.resblocks.{k}.", target)
        found |= _split(state, f"transformer.resblocks.{k}.attn.in_proj_KIND", target)
    return found | _renamed(state, {"ln_final": "final_layer_norm", "text_projection": "head"}, "", "text_model.")
