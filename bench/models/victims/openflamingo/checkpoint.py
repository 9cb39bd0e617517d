"""Released OpenFlamingo checkpoints: perceiver, gated blocks and embeddings, loaded with no name left over or missing.

A checkpoint.pt holds no image tower and none of the language model's layers (see `language.read_language` for these).
"""

import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bench.errors import UsageError
from bench.models.encoders.checkpoint import check_file
from bench.models.victims.openflamingo.gates import GatedBlock, GatedLayer
from bench.models.victims.openflamingo.language import Family, layers
from bench.models.victims.openflamingo.perceiver import Perceiver

LANGUAGE, PERCEIVER, GATE = "lang_encoder.", "perceiver.", "gated_cross_attn_layer."
_WRAPPER, _PARALLEL = "model_state_dict", "module."


@dataclass(frozen=True)
class Architecture:
    """The sizes that a checkpoint was trained with.

    Attributes:
        width: channels of the image encoder's tokens.
        latents: per image.
        depth: layers of the perceiver.
        inner: channels of all heads of its attention.
        hidden: channels of its feed-forward layers.
        every: a gated block precedes every so many layers of the language model, the last of each group.
        gate_inner: channels of all heads of a gated block's attention.
        gate_hidden: channels of its feed-forward layer.
    """

    width: int
    latents: int
    depth: int
    inner: int
    hidden: int
    every: int
    gate_inner: int
    gate_hidden: int

    @classmethod
    def standard(cls, width: int, language_width: int, every: int) -> "Architecture":
        """The published sizes for an image encoder and a language model of these widths."""
        return cls(width, 64, 6, 512, 4 * width, every, 512, 4 * language_width)


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """A released checkpoint's tensors under their plain names; nothing in the file is run.

    Raises:
        UsageError: the file is missing, is no checkpoint, or holds NaN.
    """
    check_file(path)
    state = _loaded(path)
    if isinstance(state, dict) and _WRAPPER in state:
        state = {name.removeprefix(_PARALLEL): tensor for name, tensor in state[_WRAPPER].items()}
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise UsageError(f"{path} is not a state dict of tensors (nor one under {_WRAPPER!r}); give a checkpoint.pt")
    if bad := [k for k, v in state.items() if v.is_floating_point() and not v.isfinite().all()]:
        raise UsageError(f"{path} holds NaN or infinite weights in {bad[:3]}; download it again")
    return state


def _loaded(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, "cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"{path} is damaged, or holds Python objects, which could run code, beside tensors; download it again"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, ValueError) as error:
        raise UsageError(
            f"{path} is not a checkpoint that can be read ({str(error)[:200]}); download it again"
        ) from error


def architecture(state: Mapping[str, Tensor], family: Family, source: object) -> Architecture:
    """The sizes that a checkpoint's tensors say.

    Raises:
        UsageError: there is no perceiver, or no gated block under the names of this family.
    """
    blocks = f"{LANGUAGE}{family.base}.{family.blocks}."
    gated = sorted({int(m[1]) for k in state if (m := re.match(re.escape(blocks) + r"(\d+)\." + re.escape(GATE), k))})
    depths = [int(m[1]) for k in state if (m := re.match(r"perceiver\.layers\.(\d+)\.", k))]
    gate = f"{blocks}{gated[0]}.{GATE}" if gated else f"{blocks}0.{GATE}"
    try:
        latents, width = state["perceiver.latents"].shape
        return Architecture(
            width=width,
            latents=latents,
            depth=1 + max(depths),
            inner=state["perceiver.layers.0.0.to_q.weight"].shape[0],
            hidden=state["perceiver.layers.0.1.1.weight"].shape[0],
            every=1 + gated[0] if gated else 0,
            gate_inner=state[f"{gate}attn.to_q.weight"].shape[0],
            gate_hidden=state[f"{gate}ff.1.weight"].shape[0],
        )
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"{source} lacks {error.args[0]!r}: it is no OpenFlamingo checkpoint, or one for another language model "
            f"than {family.kind.__name__}"
        ) from error


def build(model: Any, family: Family, sizes: Architecture, rows: int) -> Perceiver:
    """Give a plain language model its gated blocks and ``rows`` embeddings, in place; returns a fresh perceiver.

    Raises:
        UsageError: the language model has too few layers for a gated block.
    """
    stack = layers(model, family)
    if not 1 <= sizes.every <= len(stack):
        raise UsageError(f"a gated block every {sizes.every} layers does not fit {len(stack)} layers")
    model.resize_token_embeddings(rows, mean_resizing=False)
    for index in range(sizes.every - 1, len(stack), sizes.every):
        gate = GatedBlock(model.config.hidden_size, sizes.width, inner=sizes.gate_inner, hidden=sizes.gate_hidden)
        stack[index] = GatedLayer(gate, stack[index])
    return Perceiver(sizes.width, latents=sizes.latents, depth=sizes.depth, inner=sizes.inner, hidden=sizes.hidden)


def released(perceiver: nn.Module, model: nn.Module, family: Family) -> dict[str, nn.Parameter]:
    """The parameters that a released checkpoint holds, by their names there."""
    own = dict(model.named_parameters())
    found = {PERCEIVER + name: parameter for name, parameter in perceiver.named_parameters()}
    found |= {LANGUAGE + name: parameter for name, parameter in own.items() if GATE in name}
    return found | {LANGUAGE + theirs: own[name] for theirs, name in family.trained.items()}


def load(
    perceiver: nn.Module,
    model: nn.Module,
    family: Family,
    state: Mapping[str, Tensor],
    source: object,
    dtype: torch.dtype | None,
) -> None:
    """Copy a checkpoint into the parameters that `released` names; every name must be there, and no other.

    Only the buffers that `Family.buffers` names are passed over. ``dtype`` None keeps the checkpoint's precision.

    Raises:
        UsageError: a tensor is missing, unknown or of another shape.
    """
    expected = released(perceiver, model, family)
    stored = {name: tensor for name, tensor in state.items() if not _is_buffer(name, model, family)}
    missing, surplus = sorted(expected.keys() - stored.keys()), sorted(stored.keys() - expected.keys())
    misfits = [
        f"{name} {tuple(stored[name].shape)}, not {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & stored.keys())
        if stored[name].shape != expected[name].shape
    ]
    if missing or surplus or misfits:
        raise UsageError(
            f"{source} does not fit its language model: {len(missing)} tensors missing {missing[:3]}, {len(surplus)} "
            f"unknown {surplus[:3]}, {len(misfits)} of another shape {misfits[:3]}; was it trained on another one?"
        )
    with torch.no_grad():
        for name, parameter in expected.items():
            parameter.data = stored[name].to(parameter.device, dtype, copy=True)


def _is_buffer(name: str, model: nn.Module, family: Family) -> bool:
    if family.buffers is None:
        return False
    place = re.escape(f"{LANGUAGE}{family.base}.{family.blocks}.")
    match = re.fullmatch(rf"{place}(\d+)\.decoder_layer\.{family.buffers}", name)
    return match is not None and int(match[1]) < len(layers(model, family))
