"""Weights in whatever precision they are stored, computed in that of the activations."""

from torch import Tensor, nn
from torch.nn import functional as F

from bench.models.encoders.exchange import exchange
from bench.models.encoders.stored import StoredLinear


class StoredNorm(nn.Module):
    """A frozen layer norm that computes in the precision of its input, whatever its weight is stored in.

    Weight and bias keep their names.
    """

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.normalized_shape, self.eps = norm.normalized_shape, norm.eps
        self.weight, self.bias = norm.weight, norm.bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., E) -> (..., E) of the same precision."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.layer_norm(x, self.normalized_shape, self.weight.to(x.dtype), bias, self.eps)


def follow(model: nn.Module) -> None:
    """Make the linear layers and norms of a frozen model compute in the precision of their input."""
    exchange(model, _following)


def _following(module: nn.Module) -> nn.Module | None:
    if type(module) is nn.Linear:
        return StoredLinear(module)
    return StoredNorm(module) if type(module) is nn.LayerNorm else None
