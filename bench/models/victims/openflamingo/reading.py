"""Prompts as token ids with what they see, and the answers that follow them token by token."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from bench.errors import UsageError
from bench.models.victims.openflamingo.gates import Sight
from bench.models.victims.openflamingo.network import Network
from bench.models.victims.openflamingo.prompts import Prompt


def read(network: Network, prompt: Prompt) -> list[int]:
    """Token ids of a prompt.

    Raises:
        UsageError: it is too long, or its tags are not one to each demonstration's image and one for the image asked
            about.
    """
    ids, wanted = network.vocabulary.encode(prompt.text), len(prompt.images) + 1
    if (tags := ids.count(network.vocabulary.image)) != wanted:
        raise UsageError(
            f"a prompt has {tags} <image> tags for {wanted} images, that which is asked about included; give each one "
            f"tag (the prompt begins {prompt.text[:60]!r})"
        )
    return ids


def check_length(tokens: int, limit: int) -> None:
    """Refuse a text that the original would cut, or that the language model has no positions for.

    Raises:
        UsageError: it is longer than the limit.
    """
    if tokens > limit:
        raise UsageError(
            f"prompt and answer take up to {tokens} tokens, the limit is {limit}; use fewer or shorter demonstrations"
        )


@torch.no_grad()
def demonstrated(network: Network, prompts: Sequence[Prompt]) -> Tensor:
    """Latents (B, T, L, D) of the demonstrations' images; zeros in front where others have more."""
    most = max(len(prompt.images) for prompt in prompts)
    latents = network.perceiver.latents
    found = torch.zeros(len(prompts), most, *latents.shape, dtype=network.compute, device=latents.device)
    for row, prompt in zip(found, prompts, strict=True):
        if prompt.images:
            row[most - len(prompt.images) :] = network.latents(torch.stack(prompt.images)[None].to(network.device))[0]
    return found


def numbered(network: Network, ids: Tensor, shown: int) -> Tensor:
    """Which of ``shown`` images each token (B, S) of whole prompts sees: the last tag's is the last; 0 for none."""
    tags = (ids == network.vocabulary.image).cumsum(1)
    return torch.where(tags > 0, tags + shown - tags[:, -1:], 0)


def sight(network: Network, prompts: Sequence[Prompt], images: Tensor, ids: Tensor) -> Sight:
    """What whole prompts (B, S) see: the demonstrations' images and those asked about (B, 3, H, W)."""
    latents = torch.cat([demonstrated(network, prompts), network.latents(images[:, None])], dim=1)
    return Sight(latents, numbered(network, ids, latents.shape[1]))


class Speaking:
    """Lets a network say its answers; see `generation.Speaker`. New tokens see the last image.

    Args:
        ids: (B, S) prompts, padded on the left.
        mask: (B, S) 1 for a token, 0 for padding.
        sight: what they see.
    """

    def __init__(self, network: Network, ids: Tensor, mask: Tensor, sight: Sight) -> None:
        self.network, self.ids, self.mask, self.sight = network, ids, mask, sight
        self.cache = DynamicCache()

    def start(self, beams: int) -> Tensor:
        """See `generation.Speaker.start`; a prompt is computed once, whatever the beams."""
        hidden = self.network.hidden(self.ids, self.mask, self.sight, self.cache)
        self.cache.batch_repeat_interleave(beams)
        self.mask = self.mask.repeat_interleave(beams, dim=0)
        last = Sight(self.sight.latents, self.sight.seen[:, -1:])
        self.sight = Sight(*(x.repeat_interleave(beams, dim=0) for x in (last.latents, last.seen)))
        return self._log_probabilities(hidden[:, -1])

    def follow(self, tokens: Tensor, parents: Tensor) -> Tensor:
        """See `generation.Speaker.follow`."""
        self.cache.reorder_cache(parents)  # type: ignore[arg-type]  # any integer tensor will do
        self.mask = nn.functional.pad(self.mask, (0, 1), value=1)  # the same for all beams of a prompt
        hidden = self.network.hidden(tokens[:, None], self.mask, self.sight, self.cache)
        return self._log_probabilities(hidden[:, 0])

    def _log_probabilities(self, hidden: Tensor) -> Tensor:
        scores = self.network.head(hidden)
        found = scores.log_softmax(-1)
        found[:, self.network.vocabulary.image] = -torch.inf
        return found.where(scores.isfinite().all(-1, keepdim=True), torch.nan)
