"""Weights stored in half precision, compute in whatever precision the activations have.

A LLaVA-1.5-7B from the hub holds 13.5 GB of float16; in float32 it would be 27 GB. Here each weight is cast when it is
used, forward and backward, so that verification in float32 needs no second copy and loses no bit.
"""

from functools import partial
from typing import Any, cast

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from bench.models.encoders.exchange import exchange

BLOCKS = (ResidualAttentionBlock, GradientCheckpointingLayer)  # of open_clip's towers and of transformers' models
PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
FP16_GRADIENT_SCALE = 1024.0  # keeps small gradients above float16's smallest number; a power of two loses no bit


class _CastLinear(torch.autograd.Function):
    """x @ W.T + b in the precision of x. Keeps W as stored for the backward pass; W and b get no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return nn.functional.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return gradients[0] @ weight.to(gradients[0].dtype), None, None


class StoredLinear(nn.Module):
    """A frozen linear layer that computes in the precision of its input, whatever its weight is stored in.

    Weight and bias keep their names.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out) of the same precision."""
        return cast(Tensor, _CastLinear.apply(x, self.weight, self.bias))


def _keep_precision(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output.to(inputs[0].dtype)


def follow_activations(model: nn.Module) -> None:
    """Make every layer of a frozen model compute in the precision of its input; embeddings give their stored one.

    A model that does so already stays as it is.
    """
    if any(isinstance(module, StoredLinear) for module in model.modules()):
        return
    exchange(model, lambda module: StoredLinear(module) if type(module) is nn.Linear else None)
    for module in model.modules():
        if not isinstance(module, StoredLinear | nn.Embedding) and list(module.parameters(recurse=False)):
            module.register_forward_hook(_keep_precision)


class _ScaledGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """The same values; the gradient that flows back is multiplied by ``factor``."""
    return cast(Tensor, _ScaledGradient.apply(x, factor))


def recompute_blocks(model: nn.Module) -> None:
    """Activation checkpointing: a transformers block keeps its input only, and runs again for its gradient.

    Unlike transformers' own switch, this works in evaluation mode and beside cached keys.
    """
    for block in model.modules():
        if isinstance(block, GradientCheckpointingLayer) and "forward" not in vars(block):
            block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)


def compile_blocks(model: nn.Module, backend: str = "inductor") -> int:
    """Let torch.compile have the blocks of a model, for batches of any size; returns how many there are.

    Blocks of one kind share what is compiled, so that a model of 24 blocks takes no longer to compile than one of two.
    Copies of the model that are made later are not compiled.
    """
    blocks = [module for module in model.modules() if isinstance(module, BLOCKS)]
    for block in blocks:
        block.compile(dynamic=True, backend=backend)
    return len(blocks)
