"""Losses of given answers, with everything before the attacked image computed once."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from bench.errors import UsageError
from bench.models.victims.openflamingo.gates import Sight
from bench.models.victims.openflamingo.network import Network
from bench.models.victims.openflamingo.prompts import Prompt, plain
from bench.models.victims.openflamingo.reading import check_length, demonstrated, numbered, read
from bench.models.victims.openflamingo.vocabulary import LONGEST
from bench.models.victims.prompts import pad_left
from tasks.base import AnswerScores

SHORTEST = 16  # tokens; if all prefixes are shorter, they cost less to compute again than to attend to from a cache


class PreparedAnswers:
    """Scores B prepared answers for candidate images; see `tasks.base.AnswerLoss`.

    ``nll`` is the sum over the answer's tokens; the end token does not count. ``greedy`` and ``first`` say what greedy
    decoding would do; beam search may say something else.

    What stands before the image that is asked about does not depend on its pixels: text, and in few-shot prompts the
    demonstrations' images. Its keys and values are computed once. No gradient flows into them, and none is due.

    Attributes:
        kept: (B,) tokens of each prompt that are not computed again for each candidate.
        computed: (B,) tokens that are.

    Raises:
        UsageError: an answer has no tokens or holds a tag, or a prompt is too long, or has more tags or fewer than
            images.
    """

    def __init__(self, network: Network, prompts: Sequence[Prompt], answers: Sequence[str]) -> None:
        self.network = network
        device = network.device
        asked = [read(network, prompt) for prompt in prompts]
        said = [_answer_ids(network, answer) for answer in answers]
        whole = [[*p, *a[:-1]] for p, a in zip(asked, said, strict=True)]  # the last token is foretold, not read
        check_length(1 + max(map(len, whole)), min(LONGEST, network.longest))
        places = [_last(ids, network.vocabulary.image) for ids in asked]
        keep = max(places) >= SHORTEST
        self.fixed = demonstrated(network, prompts)  # (B, T, L, D)
        self.prefix = (
            _Prefix(network, [ids[:n] for ids, n in zip(asked, places, strict=True)], self.fixed) if keep else None
        )
        cut = places if keep else [0] * len(asked)
        rest = [ids[n:] for ids, n in zip(whole, cut, strict=True)]
        self.ids, self.mask = _pad_right(rest, network.vocabulary.pad, device)
        self.kept = torch.tensor(cut, device=device)
        self.computed = self.mask.sum(1)
        lengths = torch.tensor([len(a) for a in said], device=device)
        step = torch.arange(max(map(len, said)), device=device)
        self.counted = step < lengths[:, None]  # (B, A)
        self.wanted, _ = _pad_right(said, network.vocabulary.pad, device)
        self.places = (self.computed[:, None] - lengths[:, None] + step).clamp(max=self.ids.shape[1] - 1)

    def __call__(self, images: Tensor, rows: Tensor) -> AnswerScores:
        """Score images (b, 3, H, W); rows (b,) names the prepared answer of each."""
        hidden = self._hidden(images, rows)
        batch = torch.arange(len(rows), device=rows.device)[:, None]
        logits = self.network.head(hidden[batch, self.places[rows]])  # (b, A, V)
        wanted, counted = self.wanted[rows], self.counted[rows]
        nll = nn.functional.cross_entropy(logits.transpose(1, 2), wanted, reduction="none")
        said = logits.argmax(-1)
        return AnswerScores((nll * counted).sum(1), ((said == wanted) | ~counted).all(dim=1), said[:, 0])

    def _hidden(self, images: Tensor, rows: Tensor) -> Tensor:
        """Last hidden states (b, S, E) of what is computed for each candidate."""
        query, ids, mask = self.network.latents(images[:, None]), self.ids[rows], self.mask[rows]
        if self.prefix is not None:
            mask = torch.cat([self.prefix.mask[rows], mask], dim=1)
            return self.network.hidden(ids, mask, Sight(query, torch.ones_like(ids)), self.prefix.cache(rows))
        latents = torch.cat([self.fixed[rows], query], dim=1)
        return self.network.hidden(ids, mask, Sight(latents, numbered(self.network, ids, latents.shape[1])))


class _Prefix:
    """Keys and values of what precedes the image asked about, one prefix a row, padded on the left."""

    def __init__(self, network: Network, prefixes: Sequence[Sequence[int]], fixed: Tensor) -> None:
        ids, mask = (torch.tensor(x, device=network.device) for x in pad_left(prefixes, network.vocabulary.pad))
        if not fixed.shape[1]:  # text alone: an image that no token sees
            fixed = fixed.new_zeros(len(prefixes), 1, *fixed.shape[2:])
        self.mask, cache = mask, DynamicCache()
        with torch.no_grad():
            network.hidden(ids, mask, Sight(fixed, numbered(network, ids, fixed.shape[1])), cache)
        layers: list[Any] = list(cache.layers)
        self.states = [(layer.keys, layer.values) for layer in layers]  # of each block, (B, heads, P, d)

    def cache(self, rows: Tensor) -> Cache:
        """For rows (b,): a cache that stays as it is."""
        return Cache(layers=[_FixedLayer(keys[rows], values[rows]) for keys, values in self.states])


class _FixedLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values in front of new ones. Nothing is stored, so that a block may be run again in a backward pass."""

    keys: Tensor
    values: Tensor

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.keys, self.values = keys, values
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Keys and values (b, heads, P + S, d) for new ones of S tokens."""
        return torch.cat([self.keys, key_states], dim=-2), torch.cat([self.values, value_states], dim=-2)


def _answer_ids(network: Network, answer: str) -> list[int]:
    """Token ids of an answer as it is generated: apart from the prompt's last colon, whatever it begins with.

    Where the vocabulary would join that colon with the answer's first mark, the original counts from an earlier colon.
    """
    if not (ids := network.vocabulary.encode(plain(answer))):
        raise UsageError(f"the answer {answer!r} has no tokens, so there is no loss to attack; leave it out")
    return ids


def _last(ids: Sequence[int], token: int) -> int:
    return len(ids) - 1 - list(reversed(ids)).index(token)


def _pad_right(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of equal length and their masks. What comes later is not seen, so padding there changes nothing."""
    longest = max(map(len, rows))
    ids = [[*row, *[pad] * (longest - len(row))] for row in rows]
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
