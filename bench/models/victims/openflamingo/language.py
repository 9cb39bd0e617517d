"""The language models under OpenFlamingo, in transformers' own classes: MPT, the older MPT-1B, and GPT-NeoX.

MPT-1B ("mosaic_gpt") is MPT with other names and a norm over all queries, and over all keys, of a layer.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, MptConfig, MptForCausalLM, PreTrainedConfig

from bench.errors import UsageError
from bench.models.encoders.formats import transformers_bars
from bench.trust import code as trust

_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    RuntimeError,
    TypeError,
    ImportError,
    SafetensorError,
    StrictDataclassError,
)


class NormedProjection(nn.Module):
    """Queries, keys and values in one projection, with a norm over all queries and one over all keys."""

    def __init__(self, linear: nn.Linear, clip: float | None, eps: float) -> None:
        super().__init__()
        width = linear.in_features
        self.linear, self.clip = linear, clip
        self.q_ln = nn.LayerNorm(width, eps=eps, bias=False)
        self.k_ln = nn.LayerNorm(width, eps=eps, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., E) -> (..., 3 E)."""
        projected = self.linear(hidden)
        if self.clip is not None:
            projected = projected.clamp(-self.clip, self.clip)
        queries, keys, values = projected.chunk(3, dim=-1)
        return torch.cat([self.q_ln(queries), self.k_ln(keys), values], dim=-1)


class NormedMpt(MptForCausalLM):  # type: ignore[no-untyped-call]
    """MPT with norms on queries and keys, which transformers' class has no place for."""

    def __init__(self, config: MptConfig) -> None:
        super().__init__(config)
        blocks: Any = self.transformer.blocks
        for block in blocks:
            clip, block.attn.clip_qkv = block.attn.clip_qkv, None
            block.attn.Wqkv = NormedProjection(block.attn.Wqkv, clip, config.layer_norm_epsilon)


@dataclass(frozen=True)
class Family:
    """One kind of language model.

    Attributes:
        kind: transformers' class, or one derived from it.
        base: attribute of the model that is everything but its head.
        blocks: attribute of that which lists the layers.
        attention: how transformers computes it: MPT's one way, or torch's for GPT-NeoX.
        trained: the embeddings that a released checkpoint holds: their names there -> their names here.
        renamed: patterns of names in the language model's files -> names here.
        buffers: pattern of names that files hold beside parameters, with nothing to load.
    """

    kind: type
    base: str
    blocks: str
    attention: str
    trained: Mapping[str, str]
    renamed: Mapping[str, str] = field(default_factory=dict)
    buffers: str | None = None


_WTE = {"transformer.wte.weight": "transformer.wte.weight"}
_NORMS = {
    r"\.attn\.Wqkv\.weight": ".attn.Wqkv.linear.weight",
    r"\.attn\.q_ln\.": ".attn.Wqkv.q_ln.",
    r"\.attn\.k_ln\.": ".attn.Wqkv.k_ln.",
}
_MOSAIC = {
    r"\.mlp\.mlp_up\.": ".ffn.up_proj.",
    r"\.mlp\.mlp_down\.": ".ffn.down_proj.",
    r"\.ln_1\.": ".norm_1.",
    r"\.ln_2\.": ".norm_2.",
    r"\.ln_f\.": ".norm_f.",
}
MPT = Family(MptForCausalLM, "transformer", "blocks", "eager", _WTE)
NORMED_MPT = Family(NormedMpt, "transformer", "blocks", "eager", _WTE, _NORMS)
MOSAIC_GPT = Family(MptForCausalLM, "transformer", "blocks", "eager", _WTE, _MOSAIC)
NORMED_MOSAIC_GPT = Family(NormedMpt, "transformer", "blocks", "eager", _WTE, _MOSAIC | _NORMS)
NEOX = Family(
    GPTNeoXForCausalLM,
    "gpt_neox",
    "layers",
    "sdpa",
    {"gpt_neox.embed_in.weight": "gpt_neox.embed_in.weight", "embed_out.weight": "lm_head.weight"},
    buffers=r"attention\.(rotary_emb\.inv_freq|bias|masked_bias)",
)

_MPT_KEYS = (
    "d_model",
    "n_heads",
    "n_layers",
    "max_seq_len",
    "vocab_size",
    "layer_norm_epsilon",
    "torch_dtype",
    "dtype",
)
_ATTENTION_KEYS = ("clip_qkv", "softmax_scale", "qk_ln")
_NEOX_KEYS = (
    "hidden_size",
    "num_attention_heads",
    "num_hidden_layers",
    "intermediate_size",
    "vocab_size",
    "hidden_act",
    "layer_norm_eps",
    "max_position_embeddings",
    "use_parallel_residual",
    "rotary_pct",
    "rotary_emb_base",
    "rope_scaling",
    "rope_parameters",
    "attention_bias",
    "torch_dtype",
    "dtype",
)

# What transformers' MPT computes whatever the config says.
_FIXED = {"expansion_ratio": 4, "logit_scale": None, "no_bias": True}
_NORM_TYPES = ("low_precision_layernorm", "layernorm")  # the same but under autocast
_FIXED_ATTENTION = {
    "attn_type": "multihead_attention",
    "alibi": True,
    "alibi_bias_max": 8,
    "prefix_lm": False,
    "attn_uses_sequence_id": False,
}
_FIXED_MOSAIC = {
    "mlp_ratio": 4,
    "logit_scale": None,
    "no_bias": True,
    "alibi": True,
    "alibi_bias_max": 8,
    "prefix_lm": False,
    "attn_uses_sequence_id": False,
}


def layers(model: nn.Module, family: Family) -> Any:
    """The list of the language model's layers."""
    return getattr(getattr(model, family.base), family.blocks)


def read_family(path: str) -> tuple[Family, PreTrainedConfig]:
    """What a folder or hub id holds; nothing in it is run.

    Raises:
        UsageError: no config there, another kind of model, or settings that the classes here do not follow.
    """
    try:
        raw, _ = PreTrainedConfig.get_config_dict(path)
        if raw.get("model_type") in ("mpt", "gpt_neox"):  # MPT-1B's names code of its own, which nothing here reads
            trust.check(path)
        if not raw:
            raise UsageError(f"{path} holds no config.json; download the whole language model")
        return family_of(raw, path)
    except UsageError:
        raise
    except _UNREADABLE as error:
        raise UsageError(_unreadable(path, error)) from error


def family_of(raw: Mapping[str, Any], path: str) -> tuple[Family, PreTrainedConfig]:
    """As `read_family`, from the contents of config.json; ``path`` is what errors name.

    Raises:
        UsageError: another kind of model, or settings that the classes here do not follow.
    """
    kind = raw.get("model_type")
    if kind == "gpt_neox":
        return NEOX, GPTNeoXConfig(**_known(raw, _NEOX_KEYS))
    if kind == "mpt":
        attention = dict(raw.get("attn_config") or {})
        _check(raw, _FIXED, path)
        _check(attention, _FIXED_ATTENTION, path)
        if (norm := raw.get("norm_type", _NORM_TYPES[0])) not in _NORM_TYPES:
            raise UsageError(f"{path}: config.json says norm_type = {norm!r}; only layer norms can be computed here")
        config = MptConfig(**_known(raw, _MPT_KEYS), attn_config=_known(attention, _ATTENTION_KEYS))
        return (NORMED_MPT if attention.get("qk_ln") else MPT), config
    if kind == "mosaic_gpt":
        _check(raw, _FIXED_MOSAIC, path)
        return (NORMED_MOSAIC_GPT if raw.get("attn_qk_ln") else MOSAIC_GPT), _mosaic_config(raw)
    raise UsageError(
        f"{path} holds a language model of type {kind!r}; OpenFlamingo's are mpt, mosaic_gpt (MPT-1B) and gpt_neox"
    )


def _check(stated: Mapping[str, Any], fixed: Mapping[str, Any], path: str) -> None:
    for name, value in fixed.items():
        if (found := stated.get(name, value)) != value:
            raise UsageError(f"{path}: config.json says {name} = {found!r}; only {value!r} can be computed here")


def _known(stated: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """The settings that the architecture has: others, which may name code to be fetched and run, are left out."""
    return {name: stated[name] for name in names if name in stated}


def _mosaic_config(raw: Mapping[str, Any]) -> MptConfig:
    """MPT-1B's config in the names of MPT's.

    Raises:
        KeyError: a size is missing.
    """
    attention = {
        "clip_qkv": raw.get("attn_clip_qkv"),
        "softmax_scale": raw.get("softmax_scale"),
        "qk_ln": bool(raw.get("attn_qk_ln")),
    }
    sizes = {name: raw[name] for name in ("d_model", "n_heads", "n_layers", "max_seq_len", "vocab_size")}
    return MptConfig(**sizes, dtype=raw.get("torch_dtype"), attn_config=attention)


def read_language(path: str, dtype: torch.dtype | str) -> tuple[Any, Family]:
    """A language model from a folder or hub id, in transformers' class, with nothing missing and nothing left over.

    Args:
        path: the folder, with config.json and weights (safetensors or .bin, in shards or not).
        dtype: what to store weights in; "auto" for that of the files.

    Raises:
        UsageError: it cannot be read, is of another kind, or its tensors are not those of the model.
    """
    family, config = read_family(path)
    kind: Any = family.kind
    try:
        with transformers_bars():
            model, report = kind.from_pretrained(
                path,
                config=config,
                dtype=dtype,
                key_mapping=dict(family.renamed),
                attn_implementation=family.attention,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except _UNREADABLE as error:
        raise UsageError(_unreadable(path, error)) from error
    surplus = sorted(k for k in report["unexpected_keys"] if not _is_buffer(family, k))
    if (missing := sorted(report["missing_keys"])) or surplus:
        raise UsageError(
            f"{path} is not the language model that its config describes: {len(missing)} tensors missing "
            f"{missing[:3]}, {len(surplus)} unknown {surplus[:3]}; download it again"
        )
    return model.eval(), family


def _is_buffer(family: Family, name: str) -> bool:
    return family.buffers is not None and re.search(rf"\.{family.buffers}$", name) is not None


def _unreadable(path: str, error: Exception) -> str:
    return (
        f"{path} holds no language model that can be read ({trust.reason(error)}); give a downloaded folder, or run "
        f"`hf download {path}` where there is a network"
    )
