"""Weights stored in half precision, computed in the precision of the activations."""

import torch
from torch import nn

from bench.models.encoders.stored import StoredLinear, follow_activations


class Scale(nn.Module):
    """A layer that computes in the precision of its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(5))

    def forward(self, x):
        return x.to(self.weight.dtype) * self.weight


def _model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Sequential(Scale()), nn.Linear(5, 2, bias=False))
    return model.half().requires_grad_(False)


def test_every_layer_follows_its_input_and_keeps_its_weight():
    model = _model()
    names = list(model.state_dict())
    x = torch.randn(3, 6, requires_grad=True)
    expected = model.float()(x)
    (gradient,) = torch.autograd.grad(expected.sum(), x)
    model = _model()
    weights = {id(p) for p in model.parameters()}
    follow_activations(model)
    assert list(model.state_dict()) == names
    assert {id(p) for p in model.parameters()} == weights
    assert [type(m) for m in (model[0], model[2])] == [StoredLinear] * 2
    found = model(x)
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected, rtol=1e-2, atol=1e-3)  # the scale computes in half precision
    (own,) = torch.autograd.grad(found.sum(), x)
    assert torch.allclose(own, gradient, rtol=1e-2, atol=1e-3)


def test_a_model_that_follows_already_stays_as_it_is():
    model = _model()
    follow_activations(model)
    modules, hooks = list(model.modules()), len(model[1][0]._forward_hooks)
    follow_activations(model)
    assert list(model.modules()) == modules
    assert len(model[1][0]._forward_hooks) == hooks == 1
