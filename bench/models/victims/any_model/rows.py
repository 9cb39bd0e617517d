"""Prompts, with or without answers, as one batch padded on the left."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

IDS, MASK = "input_ids", "attention_mask"
QFORMER = "qformer_"  # inputs of a second text model, whose lengths are its own
_GROWS_WITH_LAST = ("cross_attention_mask",)  # an answer's tokens see what the prompt's last token sees
SUFFIX = "token_type_ids"  # PaliGemma: 1 for what follows the prompt


@dataclass(frozen=True)
class TextRows:
    """What a model takes besides images, for B prompts.

    Attributes:
        inputs: by name; those of the text have B rows and T columns.
        padded: whether any row is shorter than the longest.
    """

    inputs: Mapping[str, Tensor]
    padded: bool

    def of(self, rows: Tensor) -> "TextRows":
        """Some of the rows."""
        return TextRows({key: value[rows] for key, value in self.inputs.items()}, self.padded)

    @property
    def positions(self) -> Tensor:
        """(B, T): counted from each row's first token."""
        return (self.inputs[MASK].cumsum(1) - 1).clamp(min=0)


def one_row(
    encoded: Mapping[str, Any], image_keys: Sequence[str], answer: Sequence[int], suffix: int
) -> dict[str, Tensor]:
    """The text inputs of one prompt as its processor encoded it, with an answer's tokens appended.

    Args:
        encoded: what the processor gave for one prompt and one image, as tensors with one row.
        image_keys: names of inputs that are made of the image.
        answer: token ids; none for the prompt alone.
        suffix: token type of what follows the prompt.
    """
    text = {key: value for key, value in encoded.items() if key not in image_keys and key != "labels"}
    if MASK not in text:
        text[MASK] = torch.ones_like(text[IDS])
    length, more = text[IDS].shape[1], len(answer)
    added = {IDS: torch.tensor([list(answer)], dtype=torch.long), MASK: torch.ones(1, more, dtype=torch.long)}
    row = {}
    for key, value in text.items():
        if key.startswith(QFORMER) or value.shape[1] != length:
            row[key] = value
        elif key in added:
            row[key] = torch.cat([value, added[key].to(value)], 1)
        elif key in _GROWS_WITH_LAST:
            row[key] = torch.cat([value, value[:, -1:].expand(-1, more, *value.shape[2:])], 1)
        else:
            tail = value.new_full((1, more, *value.shape[2:]), suffix if key == SUFFIX else 0)
            row[key] = torch.cat([value, tail], 1)
    return row


def batch_rows(rows: Sequence[Mapping[str, Tensor]], pad_token: int, device: torch.device) -> TextRows:
    """Rows as a batch: padded on the left; inputs of a second text model on the right, where it counts positions."""
    inputs = {}
    for key in rows[0]:
        longest = max(row[key].shape[1] for row in rows)
        value = pad_token if key == IDS else 0
        inputs[key] = torch.cat([_padded(row[key], longest, value, right=key.startswith(QFORMER)) for row in rows])
    lengths = {row[IDS].shape[1] for row in rows}
    return TextRows({key: value.to(device) for key, value in inputs.items()}, len(lengths) > 1)


def _padded(row: Tensor, length: int, value: int, *, right: bool) -> Tensor:
    missing = length - row.shape[1]
    behind = [0, 0] * (row.dim() - 2)
    return pad(row, [*behind, *((0, missing) if right else (missing, 0))], value=value)
