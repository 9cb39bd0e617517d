"""Greedy decoding and beam search, with the length penalty of today's transformers or that of the published numbers.

Only the end-of-chunk token ends an answer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class LengthRule(Protocol):
    """What a beam's sum of log-probabilities is divided by, raised to the length penalty."""

    @property
    def end(self) -> int:
        """1 if the end token counts, else 0."""

    def prompt(self, own: int, padded: int) -> int:
        """How much a prompt of ``own`` tokens counts in a batch where all are ``padded`` to one length."""

    def hope(self, best: float, open_best: float) -> float:
        """Whose score decides if beams go on: the best candidate's of this step, or the best one's that goes on."""


@dataclass(frozen=True)
class NewTokens:
    """Generated tokens and the end token: transformers since 4.36."""

    end: int = 1

    def prompt(self, own: int, padded: int) -> int:
        """Nothing."""
        return 0

    def hope(self, best: float, open_best: float) -> float:
        """The best beam that goes on."""
        return open_best


@dataclass(frozen=True)
class WithPrompt:
    """The prompt and the generated tokens, not the end token: transformers of 2023, one prompt at a time."""

    end: int = 0

    def prompt(self, own: int, padded: int) -> int:
        """Its tokens, whatever stands beside it in a batch."""
        return own

    def hope(self, best: float, open_best: float) -> float:
        """The best candidate, ended or not."""
        return best


@dataclass(frozen=True)
class WithPaddedPrompt(WithPrompt):
    """As `WithPrompt`, with padding: transformers of 2023 on a batch. Answers depend on what stands in the batch."""

    def prompt(self, own: int, padded: int) -> int:
        """The batch's longest prompt."""
        return padded


@dataclass(frozen=True)
class Decoding:
    """How an answer is found.

    Attributes:
        beams: 1 for greedy decoding, which knows no length penalty.
        length_penalty: the power; below zero favours short answers.
        length: what it is a power of.
    """

    beams: int = 1
    length_penalty: float = 0.0
    length: LengthRule = field(default_factory=NewTokens)


class Speaker(Protocol):
    """Log-probabilities of the next token, given what was said so far.

    They are -inf for a token that may not come, and NaN for all where the model's scores are not all finite.
    """

    def start(self, beams: int) -> Tensor:
        """(B, V) after the prompts; each row is then taken ``beams`` times."""

    def follow(self, tokens: Tensor, parents: Tensor) -> Tensor:
        """(B * beams, V) after tokens (B * beams,) that follow the rows ``parents`` (B * beams,)."""


class Said(NamedTuple):
    """Answers of B prompts.

    Attributes:
        ids: their tokens, without the end token.
        finite: (B,) bool: whether every score behind each was finite; if not, its tokens mean nothing.
    """

    ids: list[list[int]]
    finite: Tensor


def greedy(speaker: Speaker, end: int, longest: int) -> Said:
    """The most likely token each time, up to the end token."""
    scores = speaker.start(1)
    token, finite = scores.argmax(-1), ~scores.isnan().all(1)
    rows, said, done = torch.arange(len(token), device=token.device), [token], token == end
    while len(said) < longest and not bool(done.all()):
        scores = speaker.follow(said[-1], rows)
        finite &= done | ~scores.isnan().all(1)
        token = scores.argmax(-1)
        said.append(token.masked_fill(done, end))
        done = done | (token == end)
    answers: list[list[int]] = torch.stack(said, 1).tolist()
    return Said([ids[: ids.index(end)] if end in ids else ids for ids in answers], finite)


def beam_search(speaker: Speaker, prompts: Sequence[int], end: int, longest: int, decoding: Decoding) -> Said:
    """The best answer of each row.

    Each step keeps the best ``beams`` continuations that do not end; of those that end, the ones among the best
    ``beams`` of all. A row is done when as many answers are complete and none that goes on can become better.

    Args:
        speaker: with B prompts.
        prompts: their lengths in tokens, without padding.
        end: the token that ends an answer.
        longest: new tokens.
        decoding: more than one beam.
    """
    k, padded = decoding.beams, max(prompts)
    rows = [_Row(k, decoding, decoding.length.prompt(own, padded)) for own in prompts]
    scores = speaker.start(k)  # (B, V): at first all beams of a row are the same
    for step in range(longest):
        vocabulary = scores.shape[-1]
        flat = scores.reshape(len(rows), -1)
        for row, broken in zip(rows, flat.isnan().any(1).tolist(), strict=True):
            if broken and not row.done:
                row.give_up()
        best, places = flat.topk(min(2 * k, flat.shape[1]), dim=1)
        for row, values, found in zip(rows, best.tolist(), places.tolist(), strict=True):
            row.step(values, [p // vocabulary for p in found], [p % vocabulary for p in found], end)
        if step + 1 == longest or all(row.done for row in rows):
            break
        tokens = torch.tensor([b.token for row in rows for b in row.open], device=scores.device)
        parents = torch.tensor([n * k + b.parent for n, row in enumerate(rows) for b in row.open], device=scores.device)
        sums = torch.tensor([b.score for row in rows for b in row.open], device=scores.device)
        scores = speaker.follow(tokens, parents) + sums[:, None]
    finite = torch.tensor([row.finite for row in rows], device=scores.device)
    return Said([row.answer() for row in rows], finite)


@dataclass
class _Beam:
    """An answer that goes on: its sum of log-probabilities, its tokens, and the beam it continues."""

    score: float
    said: list[int]
    parent: int

    @property
    def token(self) -> int:
        return self.said[-1]


class _Row:
    """The beams of one prompt."""

    def __init__(self, beams: int, decoding: Decoding, prompt: int) -> None:
        self.beams, self.decoding, self.prompt = beams, decoding, prompt
        self.open = [_Beam(0.0, [], 0)] * beams
        self.complete: list[tuple[float, list[int]]] = []  # the best ones, by score
        self.done, self.finite = False, True

    def give_up(self) -> None:
        """Scores are not finite: nothing more is compared."""
        self.complete, self.done, self.finite = [(0.0, [])], True, False

    def step(self, scores: Sequence[float], parents: Sequence[int], tokens: Sequence[int], end: int) -> None:
        """Take candidates, the best first. A row that is done goes on with its beams, to no effect."""
        if self.done:
            self.open = [_Beam(b.score, [*b.said, end], n) for n, b in enumerate(self.open)]
            return
        length, going = self.prompt + len(self.open[0].said), []
        for rank, (score, parent, token) in enumerate(zip(scores, parents, tokens, strict=True)):
            said = self.open[parent].said
            if token != end:
                going.append(_Beam(score, [*said, token], parent))
            elif rank < self.beams:
                self._complete(score, length + self.decoding.length.end, said)
            if len(going) == self.beams:
                break
        self.open = going
        hope = self.decoding.length.hope(scores[0], going[0].score)
        full = len(self.complete) == self.beams
        self.done = full and self.complete[-1][0] >= self._scaled(hope, length + 1)

    def answer(self) -> list[int]:
        """The best answer; beams that were cut off count as complete, unless the row was done before."""
        if not self.done:
            for beam in self.open:
                self._complete(beam.score, self.prompt + len(beam.said), beam.said)
        return self.complete[0][1]

    def _scaled(self, score: float, length: int) -> float:
        return score / math.pow(length, self.decoding.length_penalty)

    def _complete(self, score: float, length: int, said: list[int]) -> None:
        self.complete.append((self._scaled(score, length), said))
        self.complete.sort(key=lambda pair: -pair[0])  # stable: of equal ones the earlier is kept
        del self.complete[self.beams :]
