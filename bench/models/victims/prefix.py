"""Keys and values of what stands before the attacked image: computed once, the same for every step."""

import inspect
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

SHORTEST = 3  # tokens; fewer cost less to compute again than to attend to from a cache
States = list[tuple[Tensor, Tensor]]
"""Keys and values of each block, (B, heads, P, D)."""


@lru_cache
def cache_argument(forward: Callable[..., Any]) -> str:
    """What a language model calls its cache: transformers 5.24 has another name for it, and 5.40 drops the old one."""
    return "cache" if "cache" in inspect.signature(forward).parameters else "past_key_values"


class FixedLayer(DynamicLayer):  # type: ignore[no-untyped-call, unused-ignore]
    """A layer's keys and values in front of those of any batch; nothing is ever added to them.

    Nothing is stored, so that a block may be run again in a backward pass (activation checkpointing).
    """

    keys: Tensor
    values: Tensor

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self.keys, self.values = keys, values
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Keys and values (b, heads, P + T, D) for new ones of T tokens; what stands in front has b rows or one."""
        keys = self.keys.expand(len(key_states), -1, -1, -1)
        values = self.values.expand(len(value_states), -1, -1, -1)
        return torch.cat([keys, key_states], dim=-2), torch.cat([values, value_states], dim=-2)


def states_of(cache: DynamicCache) -> States:
    """What a cache holds after a forward pass."""
    layers: list[Any] = list(cache.layers)
    return [(layer.keys, layer.values) for layer in layers]


def fixed(states: States) -> Cache:
    """For scoring: a cache that stays as it is."""
    return Cache(layers=[FixedLayer(keys, values) for keys, values in states])


def growing(states: States, batch: int) -> DynamicCache:
    """For generation: a cache that begins with these states, of one row or of ``batch``, and takes what follows."""
    cache = DynamicCache()
    for number, (keys, values) in enumerate(states):
        cache.update(keys.expand(batch, -1, -1, -1), values.expand(batch, -1, -1, -1), number)
    return cache


class Prefix:
    """The P tokens before the image of every prompt of a model.

    Attributes:
        kept: how many of them stand as keys and values in front of each sequence: all, or none if they are few.
    """

    def __init__(self, ids: Sequence[int], read: Callable[[Tensor, DynamicCache], object]) -> None:
        """Keep ids; ``read`` runs the model over ids (1, P) and fills a cache."""
        self.ids = list(ids)
        self.kept = len(self.ids) if len(self.ids) >= SHORTEST else 0
        self._read = read
        self._states: States = []

    def fixed(self, device: torch.device) -> Cache | None:
        """For scoring: a cache for batches of any size; None if nothing is kept."""
        return fixed(self.states(device)) if self.kept else None

    def states(self, device: torch.device) -> States:
        """For scoring: keys and values of each block, of one row; none if nothing is kept."""
        return self._on(device) if self.kept else []

    def growing(self, batch: int, device: torch.device) -> DynamicCache:
        """For generation: a cache that begins with the prefix, if it is kept, and takes what follows."""
        return growing(self.states(device), batch)

    def _on(self, device: torch.device) -> States:
        """Keys and values, computed once on each device; no gradient flows into them."""
        if not self._states or self._states[0][0].device != device:
            cache = DynamicCache()
            with torch.no_grad():
                self._read(torch.tensor([self.ids], device=device), cache)
            self._states = states_of(cache)
        return self._states
