"""Attention over few tokens: torch's own results and gradients."""

import pytest
import torch
from torch.nn import functional as F

from bench.models.encoders.short_attention import SHORT, attend


def _parts(queries: int, keys: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(queries)
    shapes = [(3, 2, count, 4) for count in (queries, keys, keys)]
    return tuple(torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes)


@pytest.mark.parametrize(("queries", "keys"), [(5, 5), (2, 7), (1, 1), (SHORT + 1, SHORT + 1)])
@pytest.mark.parametrize("biased", [False, True])
def test_values_and_gradients_are_those_of_torch(queries, keys, biased):
    parts = _parts(queries, keys)
    bias = None
    if biased:
        bias = torch.zeros(3, 1, queries, keys, dtype=torch.float64)
        bias[1, :, :, 1:] = torch.finfo(torch.float64).min
    theirs, ours = F.scaled_dot_product_attention(*parts, attn_mask=bias), attend(*parts, bias)
    assert torch.allclose(ours, theirs, rtol=1e-12, atol=1e-12)
    weights = torch.rand(ours.shape, dtype=torch.float64)
    for one, other in zip(*(torch.autograd.grad((x * weights).sum(), parts) for x in (ours, theirs)), strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-12)


def test_heads_may_lie_as_a_projection_leaves_them():
    projected = torch.rand(2, 5, 3 * 2 * 4, dtype=torch.float64)
    parts = projected.view(2, 5, 3, 2, 4).permute(2, 0, 3, 1, 4)
    assert torch.allclose(attend(*parts), F.scaled_dot_product_attention(*parts), rtol=1e-12)


def test_large_scores_stay_finite_and_a_query_that_sees_nothing_too():
    query, key, value = (part.detach().float() * 1e4 for part in _parts(4, 4))
    nothing = torch.full((1, 1, 4, 4), torch.finfo(torch.float32).min)
    assert attend(query, key, value).isfinite().all()
    assert attend(query, key, value, nothing).isfinite().all()


def test_a_gradient_of_a_gradient_is_refused_and_not_wrong():
    query, key, value = _parts(3, 3)
    (first,) = torch.autograd.grad(attend(query, key, value).square().sum(), query, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
