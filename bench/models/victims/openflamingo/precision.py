"""Weights in whatever precision they are stored, computed in that of the activations."""

from torch import Tensor, nn
from torch.nn import functional as F

from bench.models.encoders.stored import StoredLinear


class StoredNorm(nn.LayerNorm):
    """A frozen layer norm that computes in the precision of its input, whatever its weight is stored in."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., E) -> (..., E) of the same precision."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.layer_norm(x, self.normalized_shape, self.weight.to(x.dtype), bias, self.eps)


def follow(model: nn.Module) -> None:
    """Make the linear layers and norms of a frozen model compute in the precision of their input."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = StoredLinear
        elif type(module) is nn.LayerNorm:
            module.__class__ = StoredNorm
