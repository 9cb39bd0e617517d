"""Attention of image towers: torch's own results, at half the price where weights are frozen."""

import copy

import open_clip
import pytest
import torch
from torch import nn

from bench.models.encoders.attention import FoldedAttention, fold_attention, unfold_attention
from bench.models.encoders.encoder import Encoder
from bench.models.encoders.load import load_encoder


def _tower(size: int = 16) -> nn.Module:
    torch.manual_seed(0)
    return open_clip.transformer.VisionTransformer(
        image_size=size, patch_size=8, width=32, layers=3, heads=2, mlp_ratio=4.0, output_dim=12
    )


def _attacked(tower: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, set[str]]:
    """Embeddings, the gradient of the images, and the operations of a step of an attack on frozen weights."""
    leaf = images.clone().requires_grad_()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        embedding = tower.requires_grad_(False)(leaf)
        (gradient,) = torch.autograd.grad(embedding.square().sum(), leaf)
    return embedding.detach(), gradient, {event.key for event in profile.key_averages()}


def test_an_attack_takes_no_product_a_position():
    plain, images = _tower(48), torch.rand(4, 3, 48, 48)  # of tokens enough for torch's own kernel
    folded = copy.deepcopy(plain)
    fold_attention(folded)
    assert [*folded.state_dict()] == [*plain.state_dict()]
    expected, found = _attacked(plain, images), _attacked(folded, images)
    for one, other in zip(expected[:2], found[:2], strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5 * one.abs().max())
    assert "aten::bmm" in expected[2]
    assert "aten::bmm" not in found[2]


def test_queries_among_the_tokens_get_what_they_get_with_all():
    attention = FoldedAttention(_tower().transformer.resblocks[0].attn)
    tokens = torch.rand(4, 5, 32)
    everyone, _ = attention(tokens, tokens, tokens)
    some, _ = attention(tokens[:, 1:3], tokens, tokens)
    assert torch.allclose(some, everyone[:, 1:3], atol=1e-6)


def test_training_has_the_same_gradients_of_weights():
    plain, images = _tower(), torch.rand(4, 3, 16, 16)
    folded = copy.deepcopy(plain)
    fold_attention(folded)
    for tower in (plain, folded):
        tower(images).square().sum().backward()
    for one, other in zip(plain.parameters(), folded.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-4, atol=1e-5 * one.grad.abs().max())


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_every_vision_transformer_that_is_loaded_is_folded(precision):
    encoder = load_encoder("clip").at(precision)
    assert isinstance(encoder, Encoder)
    blocks = encoder.visual.transformer.resblocks
    assert [type(block.attn) for block in blocks] == [FoldedAttention] * len(blocks)


def test_attention_that_is_not_plain_is_left_alone():
    block = open_clip.transformer.ResidualAttentionBlock(16, 2, is_cross_attention=True)
    other = nn.MultiheadAttention(16, 2, batch_first=True)
    for module in (block, other):
        fold_attention(module)
        assert not [m for m in module.modules() if isinstance(m, FoldedAttention)]


def test_folding_keeps_parameters_and_can_be_undone():
    tower, images = _tower(), torch.rand(2, 3, 16, 16)
    names, expected = list(tower.state_dict()), tower(images)
    parameters = dict(tower.named_parameters())
    fold_attention(tower)
    assert list(tower.state_dict()) == names
    assert all(one is parameters[name] for name, one in tower.named_parameters())
    unfold_attention(tower)
    assert {type(block.attn) for block in tower.transformer.resblocks} == {nn.MultiheadAttention}
    assert list(tower.state_dict()) == names
    assert torch.equal(tower(images), expected)
