"""Losses of given answers, for candidate images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from tasks.base import AnswerScores


@dataclass(frozen=True)
class Rows:
    """Token ids as a batch, padded on the left.

    Attributes:
        ids: (B, T).
        mask: (B, P + T) 1 for a token, 0 for padding; P tokens stand in front as keys and values.
        positions: (B, T), counted from the first token in front.
    """

    ids: Tensor
    mask: Tensor
    positions: Tensor

    def of(self, rows: Tensor) -> "Rows":
        """Some of the rows."""
        return Rows(self.ids[rows], self.mask[rows], self.positions[rows])


class Reader(Protocol):
    """A language model that reads images: what scoring needs of it."""

    def hidden(self, rows: Rows, images: Tensor, count: int) -> Tensor:
        """Last hidden states (b, count, H) of the last tokens of sequences with the features of images in place."""

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., H) -> (..., V) float32."""


class PreparedAnswers:
    """Scores B prepared answers for candidate images; see `tasks.base.AnswerLoss`."""

    def __init__(self, reader: Reader, asked: Rows, lengths: Sequence[int]) -> None:
        """Keep prompts with their answers, of which the last tokens of each row, so many, are the answer's."""
        self.reader, self.ids = reader, asked.ids
        self.asked = Rows(asked.ids[:, :-1], asked.mask[:, :-1], asked.positions[:, :-1])  # nothing follows the end
        self.longest = max(lengths)
        counts = torch.tensor(lengths, device=self.ids.device)
        place = torch.arange(self.longest, device=self.ids.device)
        self.counted = place >= self.longest - counts[:, None]  # (B, L), answers end at the right
        self.begins = self.longest - counts  # (B,)

    def __call__(self, images: Tensor, rows: Tensor) -> AnswerScores:
        """Score images (b, 3, H, W); rows (b,) names the prepared answer of each."""
        logits = self.reader.logits(self.reader.hidden(self.asked.of(rows), images, self.longest))  # (b, L, V)
        wanted, counted = self.ids[rows, -self.longest :], self.counted[rows]
        nll = nn.functional.cross_entropy(logits.transpose(1, 2), wanted, reduction="none")
        said = logits.argmax(-1)
        greedy = ((said == wanted) | ~counted)[:, :-1].all(dim=1)  # whether the end token follows is no matter
        first = said.gather(1, self.begins[rows, None]).squeeze(1)
        text, of_text = nll[:, :-1], counted[:, :-1]
        text_nll = (text * of_text).sum(1) / of_text.sum(1)
        return AnswerScores((nll * counted).sum(1) / counted.sum(1), greedy, first, text_nll)
