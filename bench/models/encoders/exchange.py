"""One module of a model in the place of another."""

from collections.abc import Callable

from torch import nn


def exchange(model: nn.Module, replacement: Callable[[nn.Module], nn.Module | None]) -> None:
    """Put what ``replacement`` gives in the place of each module inside a model; where it gives None, that stays."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if (other := replacement(child)) is not None:
                setattr(parent, name, other)
