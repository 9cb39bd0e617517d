"""Attention over a few tokens on a CPU, where torch's fused kernel spends its time on calls instead of numbers."""

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

SHORT = 32  # keys; from about 50 on torch's own kernel is as fast


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
    """Softmax attention, by whichever way is faster: the same but for rounding.

    Args:
        query: (b, h, Q, D).
        key: (b, h, K, D).
        value: (b, h, K, D).
        bias: added to the scores, broadcast to (b, h, Q, K); it gets no gradient.

    Returns:
        (b, h, Q, D).
    """
    precise = query.dtype in (torch.float32, torch.float64)
    if query.device.type != "cpu" or key.shape[2] > SHORT or not precise:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    return cast(Tensor, _ShortAttention.apply(query, key, value, bias))


class _ShortAttention(torch.autograd.Function):
    """Batched products of all heads at once, with what lies between them done in place."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        batch, heads, count, width = query.shape
        q, k, v = (x.reshape(batch * heads, -1, width) for x in (query, key, value))
        seen = torch.bmm(q, k.transpose(1, 2)).mul_(width**-0.5)
        if bias is not None:
            seen.view(batch, heads, count, -1).add_(bias)
        seen.sub_(seen.amax(-1, keepdim=True)).exp_()
        seen.div_(seen.sum(-1, keepdim=True))
        ctx.save_for_backward(q, k, v, seen)
        return torch.bmm(seen, v).view(query.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, seen = ctx.saved_tensors
        batch, heads, _, width = gradient.shape
        g = gradient.reshape(q.shape)
        of_scores = torch.bmm(g, v.transpose(1, 2)).mul_(seen)
        of_scores.addcmul_(seen, of_scores.sum(-1, keepdim=True), value=-1).mul_(width**-0.5)
        found = torch.bmm(of_scores, k), torch.bmm(of_scores.transpose(1, 2), q), torch.bmm(seen.transpose(1, 2), g)
        of_query, of_key, of_value = (x.view(batch, heads, -1, width) for x in found)
        return of_query, of_key, of_value, None
