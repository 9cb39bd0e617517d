"""How many bytes an attack on an OpenFlamingo needs, said before it starts; see `bench.models.victims.memory`.

The activations are counted as autograd keeps them for frozen weights: of a linear layer nothing, of a norm its input,
of a GELU its input, of attention its queries, keys and values, and its output or its weights.
"""

from dataclasses import dataclass
from typing import Any

from bench.models.victims.memory import Need
from bench.models.victims.openflamingo.gates import GatedLayer
from bench.models.victims.openflamingo.language import NormedMpt, layers
from bench.models.victims.openflamingo.network import Network

PREFIX, TEXT, ANSWER = 128, 64, 32  # tokens before the image, from it on, and of the answer: more than 0 shots use
_FLOAT = 4  # bytes


@dataclass(frozen=True)
class Shapes:
    """What memory depends on. Widths in elements; ``stored`` and ``compute`` in bytes an element."""

    blocks: int
    blind: int  # of them, those before the first gated block, which depend on no pixel
    gates: int
    width: int
    heads: int
    mlp: int
    eager: bool  # attention weights are kept, in float32
    normed: bool  # queries and keys are
    vocabulary: int
    gate_inner: int
    gate_mlp: int
    latents: int
    perceiver_layers: int
    perceiver_inner: int
    perceiver_mlp: int
    tower_blocks: int
    tower_width: int
    tower_mlp: int  # hidden elements that its activation function keeps
    patches: int
    weights: int  # bytes of everything loaded
    stored: int
    compute: int


@dataclass(frozen=True)
class Text:
    """Tokens of a prompt with its answer.

    Attributes:
        prefix: before the image that is asked about; computed once.
        rest: from that image on, computed in each step.
        answer: of the answer, whose logits are needed.
    """

    prefix: int = PREFIX
    rest: int = TEXT
    answer: int = ANSWER


USUAL = Text()


def shapes(network: Network) -> Shapes:
    """The shapes of a network, as it stands and computes; no memory is touched, so it may lie on the meta device."""
    config: Any = network.lang_encoder.config
    stack = layers(network.lang_encoder, network.family)
    gated = [index for index, layer in enumerate(stack) if isinstance(layer, GatedLayer)]
    gate = stack[gated[0]].gated_cross_attn_layer
    tower: Any = network.encoder.visual
    block = tower.transformer.resblocks[0]
    perceiver: Any = network.perceiver.layers
    attention, feed_forward = perceiver[0]
    tensors = {id(t): t for t in (*network.parameters(), *network.buffers())}
    return Shapes(
        blocks=len(stack),
        blind=gated[0],
        gates=len(gated),
        width=config.hidden_size,
        heads=config.num_attention_heads,
        mlp=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        eager=network.lang_encoder.config._attn_implementation == "eager",
        normed=isinstance(network.lang_encoder, NormedMpt),
        vocabulary=network.lang_encoder.get_output_embeddings().out_features,
        gate_inner=gate.attn.to_q.out_features,
        gate_mlp=gate.ff[1].out_features,
        latents=len(network.perceiver.latents),
        perceiver_layers=len(perceiver),
        perceiver_inner=attention.to_q.out_features,
        perceiver_mlp=feed_forward[1].out_features,
        tower_blocks=len(tower.transformer.resblocks),
        tower_width=network.encoder.width,
        tower_mlp=(1 if type(block.mlp.gelu).__name__ == "GELU" else 2) * block.mlp.c_fc.out_features,
        patches=network.encoder.n_patches,
        weights=sum(t.numel() * t.element_size() for t in tensors.values()),
        stored=max(p.element_size() for p in network.lang_encoder.parameters()),
        compute=network.compute.itemsize,
    )


def estimate(model: Shapes, batch: int, *, checkpointing: bool, text: Text = USUAL) -> Need:
    """What one attack step on ``batch`` images needs.

    Args:
        model: see `shapes`.
        batch: images.
        checkpointing: blocks of tower and language model keep their input only, and are computed again in the
            backward pass. The perceiver is small and keeps everything.
        text: what is asked.
    """
    c, tokens = model.compute, text.rest
    block, gate, tower = _block(model, text), _gate(model, tokens), _tower_block(model)
    if checkpointing:
        kept = (model.blocks + model.gates) * tokens * model.width
        kept += model.tower_blocks * _places(model) * model.tower_width
    else:
        kept = (model.blocks - model.blind) * block + model.gates * gate + model.tower_blocks * tower
    kept += _perceiver(model) + tokens * model.width  # and the final norm's input
    states = 2 * model.blocks * text.prefix * model.width * c  # keys and values of the prefix
    softmax = text.answer * model.vocabulary * _FLOAT
    passing = 2 * softmax + text.answer * model.vocabulary * c + states  # a copy for the rows of a batch
    passing += max(block, gate, tower) * c * (2 if checkpointing else 1)
    cast = max(model.mlp, model.vocabulary) * model.width * c if model.stored != model.compute else 0
    return Need(model.weights, batch * (kept * c + softmax + states), batch * passing + cast)


def _block(model: Shapes, text: Text) -> int:
    """Elements that a layer of the language model keeps."""
    tokens, seen = text.rest, text.prefix + text.rest
    kept = tokens * (2 * model.width + model.mlp)  # two norms, GELU
    kept += (tokens + 2 * seen) * model.width  # queries; keys and values, the prefix's in front
    if model.normed:
        kept += 3 * tokens * model.width
    if model.eager:
        scores = model.heads * tokens * seen
        return kept + scores * (1 if model.compute == _FLOAT else 1 + _FLOAT // model.compute)
    return kept + (3 if not text.prefix else 1) * tokens * model.width  # values are a view of the whole projection


def _gate(model: Shapes, tokens: int) -> int:
    """Elements that a gated block keeps, where one image is seen."""
    kept = tokens * (2 * model.width + model.gate_mlp)
    return kept + 2 * (tokens + model.latents) * model.gate_inner


def _perceiver(model: Shapes) -> int:
    """Elements that the perceiver keeps of one image."""
    own, width = model.latents, model.tower_width
    layer = 2 * own * width + own * model.perceiver_mlp
    layer += 2 * own * model.perceiver_inner + 2 * (model.patches + own) * model.perceiver_inner
    return model.perceiver_layers * layer + model.patches * width + own * width


def _places(model: Shapes) -> int:
    return model.patches + 1


def _tower_block(model: Shapes) -> int:
    return _places(model) * (6 * model.tower_width + model.tower_mlp)
