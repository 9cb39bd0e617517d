"""Several conversations about one image as one training sequence, each of which sees the image and itself only.

So an image is read once for all that is asked about it, and each answer is what it would be if it were asked alone.
"""

import torch
from torch import Tensor

Sequence = tuple[list[int], list[int], list[int]]  # token ids, conversation of each token (0: shared), answer flags


def collate(sequences: list[Sequence]) -> tuple[Tensor, Tensor, Tensor]:
    """Pad on the right: ids, turns (-1 at padding) and answer flags, each (B, T)."""
    length = max(len(tokens) for tokens, _, _ in sequences)
    columns = []
    for number, padding in enumerate((0, -1, 0)):
        rows = [sequence[number] + [padding] * (length - len(sequence[number])) for sequence in sequences]
        columns.append(torch.tensor(rows))
    ids, turns, answers = columns
    return ids, turns, answers


def visible(turns: Tensor) -> Tensor:
    """(B, 1, T, T): whether a token (row) sees another (column)."""
    shared = turns == 0
    same = (turns[:, :, None] == turns[:, None, :]) | shared[:, None, :]
    causal = torch.ones(turns.shape[1], turns.shape[1], dtype=torch.bool).tril()
    return (same & causal)[:, None]


def offsets(turns: Tensor) -> Tensor:
    """(B, T): how many tokens of its conversation stand before each."""
    place = torch.arange(turns.shape[1]).expand_as(turns)
    first_of_turn = torch.stack([torch.where(turns == t, place, 10**6).amin(1) for t in range(int(turns.max()) + 1)], 1)
    return place - first_of_turn.gather(1, turns.clamp(min=0))


def as_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to attention scores: 0 where a token sees another, else the smallest number."""
    return torch.zeros(mask.shape, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)
