"""What an attack on a LLaVA needs of memory; see `bench.models.victims.memory`.

The activations are counted as autograd keeps them for frozen weights: of a linear layer nothing but its weight, of a
norm its input, of attention its queries, keys, values and output, of a gated MLP three hidden layers.
"""

from dataclasses import dataclass

from bench.models.encoders.shapes import TowerShapes
from bench.models.victims.memory import Need

TEXT, ANSWER = 96, 32  # tokens after the image, answer included, and of the answer: more than the paper's tasks use
_FLOAT = 4  # bytes


@dataclass(frozen=True)
class Shapes:
    """What memory depends on. Widths in elements; ``stored`` and ``compute`` in bytes per element."""

    blocks: int
    width: int
    attention: int  # all heads' queries
    keys: int  # all heads' keys
    mlp: int
    vocabulary: int
    tower: TowerShapes
    patches: int
    prefix: int
    reads_last: bool  # whether the last block is computed for the answer's tokens alone
    weights: int  # bytes of everything loaded
    stored: int
    compute: int


def estimate(model: Shapes, batch: int, *, checkpointing: bool, text: int = TEXT, answer: int = ANSWER) -> Need:
    """What one attack step on ``batch`` images needs.

    Args:
        model: see `bench.models.victims.llava.model.Llava.shapes`.
        batch: images.
        checkpointing: blocks keep their input only, and are computed again in the backward pass.
        text: tokens after the image, answer included.
        answer: tokens whose logits are needed.
    """
    c, tokens = model.compute, model.patches + text
    seen, read = tokens + model.prefix, answer if model.reads_last else tokens

    def language_block(count: int) -> int:
        """A block whose output is computed for some tokens; the others are keys and values."""
        norms = (tokens + count) * model.width
        return (norms + count * (2 * model.attention + 3 * model.mlp) + 2 * seen * model.keys + count * seen) * c

    block = language_block(tokens)
    places = model.patches + 1
    tower_block = places * (6 * model.tower.width + model.tower.mlp) * c
    if checkpointing:
        kept = model.blocks * tokens * model.width * c + model.tower.blocks * places * model.tower.width * c
    else:
        kept = (model.blocks - 1) * block + language_block(read) + model.tower.blocks * tower_block
    ends = (model.tower.pixels + model.patches * model.width + read * model.width) * c  # and the final norm
    softmax = answer * model.vocabulary * _FLOAT
    passing = 2 * softmax + answer * model.vocabulary * c + block * (2 if checkpointing else 1)
    cast = max(model.mlp, model.vocabulary) * model.width * c if model.stored != model.compute else 0
    return Need(model.weights, batch * (kept + ends + softmax), batch * passing + cast)
