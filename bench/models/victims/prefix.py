"""Keys and values of the text before the image: computed once, the same for every question, step and image."""

import inspect
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

SHORTEST = 16  # tokens; shorter prefixes cost less to compute again than to attend to from a cache


@lru_cache
def cache_argument(forward: Callable[..., Any]) -> str:
    """What a language model calls its cache: transformers 5.24 has another name for it, and 5.40 drops the old one."""
    return "cache" if "cache" in inspect.signature(forward).parameters else "past_key_values"


class _FixedLayer(DynamicLayer):
    """A layer's keys and values (1, heads, P, D) in front of those of any batch; nothing is ever added to them.

    Nothing is stored, so that a block may be run again in a backward pass (activation checkpointing).
    """

    keys: Tensor
    values: Tensor

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.keys, self.values = keys, values
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Keys and values (b, heads, P + T, D) for new ones of T tokens."""
        keys = self.keys.expand(len(key_states), -1, -1, -1)
        values = self.values.expand(len(value_states), -1, -1, -1)
        return torch.cat([keys, key_states], dim=-2), torch.cat([values, value_states], dim=-2)


class Prefix:
    """The P tokens before the image of every prompt of a model.

    Attributes:
        kept: how many of them stand as keys and values in front of each sequence: all, or none if they are few.
    """

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = list(ids)
        self.kept = len(self.ids) if len(self.ids) >= SHORTEST else 0
        self._states: list[tuple[Tensor, Tensor]] = []  # of each block, (1, heads, P, D)

    def _blocks(self, llava: Any) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of each block; no gradient flows into them."""
        if not self._states or self._states[0][0].device != llava.device:
            with torch.no_grad():
                ids = torch.tensor([self.ids], device=llava.device)
                embedded = llava.model.get_input_embeddings()(ids).to(llava.compute)
                cache = DynamicCache()
                places = torch.arange(len(self.ids), device=llava.device)[None]
                llava._hidden(embedded, torch.ones_like(ids), places, cache)
                layers: list[Any] = list(cache.layers)
                self._states = [(layer.keys, layer.values) for layer in layers]
        return self._states

    def fixed(self, llava: Any) -> Cache | None:
        """For scoring: a cache that stays as it is, for batches of any size; None if nothing is kept."""
        return Cache(layers=[_FixedLayer(k, v) for k, v in self._blocks(llava)]) if self.kept else None

    def growing(self, llava: Any, batch: int) -> Cache:
        """For generation: a cache that begins with the prefix, if it is kept, and takes what follows."""
        cache = DynamicCache()
        for number, (keys, values) in enumerate(self._blocks(llava) if self.kept else ()):
            cache.update(keys.expand(batch, -1, -1, -1), values.expand(batch, -1, -1, -1), number)
        return cache
