"""How many bytes an attack on a vision-language model needs, said before it starts.

The activations are counted as autograd keeps them for frozen weights: of a linear layer nothing but its weight, of a
norm its input, of attention its queries, keys, values and output, of a gated MLP three hidden layers.
"""

import sys
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm

from bench.errors import UsageError

GB = 1e9
WORTH_SAYING = GB  # smaller needs are not announced
TEXT, ANSWER = 96, 32  # tokens after the image, answer included, and of the answer: more than the paper's tasks use
MARGIN = 1.1  # fragmentation, kernels' workspaces
_FLOAT = 4  # bytes


@dataclass(frozen=True)
class Shapes:
    """What memory depends on. Widths in elements; ``stored`` and ``compute`` in bytes an element."""

    blocks: int
    width: int
    attention: int  # all heads' queries
    keys: int  # all heads' keys
    mlp: int
    vocabulary: int
    tower_blocks: int  # up to the one whose features are read
    tower_width: int
    tower_mlp: int  # hidden elements that its activation function keeps
    pixels: int  # elements of an image that the tower's first layer keeps
    patches: int
    prefix: int
    weights: int  # bytes of everything loaded
    stored: int
    compute: int


@dataclass(frozen=True)
class Need:
    """Bytes: of weights, of what one batch keeps for its gradient, and of what comes and goes beside it."""

    weights: int
    activations: int
    passing: int

    @property
    def beside_weights(self) -> int:
        """What must be free once the weights are loaded."""
        return round(MARGIN * (self.activations + self.passing))

    @property
    def total(self) -> int:
        """Everything."""
        return self.weights + self.beside_weights


def shapes(llava: Any) -> Shapes:
    """The shapes of a `bench.models.victims.llava.Llava`, as it stands and computes."""
    text = llava.model.config.get_text_config()
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    blocks, width, mlp, theirs = _tower(llava.encoder)
    tensors = {t.data_ptr() or id(t): t for t in (*llava.parameters(), *llava.buffers())}
    return Shapes(
        blocks=text.num_hidden_layers,
        width=text.hidden_size,
        attention=head * text.num_attention_heads,
        keys=head * text.num_attention_heads,  # repeated for each query head before they are kept
        mlp=text.intermediate_size,
        vocabulary=text.vocab_size,
        tower_blocks=blocks if theirs else blocks + 1 + llava.layer,
        tower_width=width,
        tower_mlp=mlp,
        pixels=3 * llava.encoder.preprocessing.size**2 if theirs else 0,
        patches=llava.patches,
        prefix=llava.prefix.kept,
        weights=sum(t.numel() * t.element_size() for t in tensors.values()),
        stored=llava.stored.itemsize,
        compute=llava.compute.itemsize,
    )


def _tower(encoder: Any) -> tuple[int, int, int, bool]:
    """Blocks, width, what an MLP keeps, and whether it is transformers' own, which runs to its last block."""
    visual = encoder.visual
    if hasattr(visual, "config"):
        config = visual.config
        kept = 2 if config.hidden_act == "quick_gelu" else 1
        return config.num_hidden_layers, config.hidden_size, kept * config.intermediate_size, True
    visual = getattr(visual, "visual", visual)
    block = visual.transformer.resblocks[0]
    kept = 1 if isinstance(block.mlp.gelu, torch.nn.GELU) else 2  # QuickGELU keeps its sigmoid, too
    return len(visual.transformer.resblocks), block.mlp.c_fc.in_features, kept * block.mlp.c_fc.out_features, False


def estimate(model: Shapes, batch: int, *, checkpointing: bool, text: int = TEXT, answer: int = ANSWER) -> Need:
    """What one attack step on ``batch`` images needs.

    Args:
        model: see `shapes`.
        batch: images.
        checkpointing: blocks keep their input only, and are computed again in the backward pass.
        text: tokens after the image, answer included.
        answer: tokens whose logits are needed.
    """
    c, tokens = model.compute, model.patches + text
    seen = tokens + model.prefix
    block = tokens * 2 * model.width * _FLOAT  # norms are computed in float32
    block += (tokens * (2 * model.attention + 3 * model.mlp) + 2 * seen * model.keys + tokens * seen) * c  # and a mask
    places = model.patches + 1
    tower_block = places * (6 * model.tower_width + model.tower_mlp) * c
    if checkpointing:
        kept = model.blocks * tokens * model.width * c + model.tower_blocks * places * model.tower_width * c
    else:
        kept = model.blocks * block + model.tower_blocks * tower_block
    ends = model.pixels * c + model.patches * model.width * c + tokens * model.width * _FLOAT  # projector, final norm
    softmax = answer * model.vocabulary * _FLOAT
    passing = 2 * softmax + answer * model.vocabulary * c + block * (2 if checkpointing else 1)
    cast = max(model.mlp, model.vocabulary) * model.width * c if model.stored != model.compute else 0
    return Need(model.weights, batch * (kept + ends + softmax), batch * passing + cast)


def largest_batch(model: Shapes, free: int, *, checkpointing: bool) -> int:
    """The largest batch whose need beside the weights fits into ``free`` bytes; 0 if none does."""
    fixed, two = (estimate(model, n, checkpointing=checkpointing).beside_weights for n in (1, 2))
    if fixed > free:
        return 0
    return 1 + int((free - fixed) // (two - fixed))


def check_weights(llava: Any, device: torch.device) -> None:
    """Refuse a model whose weights alone are larger than what is free.

    Raises:
        UsageError: so it is; says how much is needed and how much there is.
    """
    if device.type != "cuda":
        return
    free, _ = torch.cuda.mem_get_info(device)
    need = shapes(llava).weights
    if need > free:
        raise UsageError(
            f"the model's weights need {need / GB:.1f} GB, {device} has {free / GB:.1f} GB free; use a larger device, "
            "or a checkpoint stored in half precision"
        )


def make_room(llava: Any, batch: int | None, device: torch.device) -> str:
    """Say what an attack will need, turn activation checkpointing on if only that makes it fit, or refuse.

    Args:
        llava: already on the device.
        batch: images attacked together; None where the run finds its own batch size: one must fit then.
        device: only a CUDA device is held to what it has.

    Returns:
        The line that was announced (models that need little are not worth one: then it is not shown).

    Raises:
        UsageError: the batch does not fit; names one that does.
    """
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
    line = plan(llava, batch, free)
    if shapes(llava).weights > WORTH_SAYING:
        tqdm.write(line, file=sys.stderr)
    return line


def plan(llava: Any, batch: int | None, free: int | None) -> str:
    """As `make_room`, for ``free`` bytes beside the weights; None if that is not known."""
    model, asked = shapes(llava), batch or 1
    plain = estimate(model, asked, checkpointing=False)
    if free is None or plain.beside_weights <= free:
        return _words(asked, plain, "")
    saving = estimate(model, asked, checkpointing=True)
    fits = largest_batch(model, free, checkpointing=True)
    if saving.beside_weights > free:
        remedy = f"use --batch-size {fits}" if fits else "use a larger device or --precision bf16"
        raise UsageError(
            f"{_words(asked, saving, ' even with activation checkpointing')}, but {free / GB:.1f} GB are free beside "
            f"the weights; {remedy}"
        )
    llava.checkpoint_activations()
    return _words(asked, saving, " with activation checkpointing, which is on")


def _words(batch: int, need: Need, how: str) -> str:
    return (
        f"an attack on {batch} image{'s' if batch > 1 else ''} at a time needs about {need.total / GB:.1f} GB{how} "
        f"({need.weights / GB:.1f} GB of them weights)"
    )
