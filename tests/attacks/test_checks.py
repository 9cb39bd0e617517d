"""Each way of hiding a gradient raises its verdict; a sound model raises none."""

import torch

from attacks.checks import gradient_verdict
from attacks.objective import Classification
from tests.toys import trained_toy


class KilledGradient(torch.autograd.Function):
    """Identity forward, zero backward."""

    @staticmethod
    def forward(ctx, images):
        return images.clone()

    @staticmethod
    def backward(ctx, gradient):
        return torch.zeros_like(gradient)


def verdict(wrap, count=48):
    toy = trained_toy()
    objective = Classification(lambda images: toy.model(wrap(images)), toy.labels[:count])
    return gradient_verdict(objective, toy.images[:count])


def test_a_sound_model_passes():
    assert verdict(lambda images: images).ok


def test_killed_gradients_are_seen():
    found = verdict(KilledGradient.apply)
    assert (found.name, found.ok) == ("gradient", False)
    assert "48 have an all-zero gradient" in found.detail


def test_quantised_inputs_are_seen():
    assert not verdict(lambda images: (images * 255).round() / 255).ok


def test_detached_models_are_seen():
    found = verdict(lambda images: images.detach())
    assert not found.ok
    assert "no gradient" in found.detail


def test_one_broken_sample_is_counted():
    def breaking(images):
        broken = images.clone()
        broken[1] = broken[1] * torch.nan
        return broken

    found = verdict(breaking, count=4)
    assert not found.ok
    assert "of 4 samples, 0 have an all-zero gradient, 1 a non-finite" in found.detail


def test_saturated_cross_entropy_is_seen_and_dlr_helps():
    toy = trained_toy()
    hot = lambda images: 1e4 * toy.model(images)  # noqa: E731
    assert not gradient_verdict(Classification(hot, toy.labels), toy.images).ok
    assert gradient_verdict(Classification(hot, toy.labels, "dlr"), toy.images).ok
