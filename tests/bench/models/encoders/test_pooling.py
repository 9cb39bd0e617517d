"""The embedding from the class token: the tower's own, with one token in the last block."""

import open_clip
import pytest
import torch

from bench.models.encoders.attention import fold_attention
from bench.models.encoders.encoder import Encoder, Preprocessing, TextTower
from bench.models.encoders.pooling import embedding_of, pools_class_token


def _tower(layers: int = 3, *, fold: bool = True, **settings: object) -> torch.nn.Module:
    torch.manual_seed(0)
    tower = open_clip.transformer.VisionTransformer(16, 8, 32, layers, 2, 4.0, output_dim=12, **settings)
    if fold:
        fold_attention(tower)
    return tower.double()


@pytest.mark.parametrize("settings", [{}, {"final_ln_after_pool": True}, {"ls_init_value": 0.3}])
def test_embedding_and_all_gradients_are_the_towers_own(settings):
    tower, images = _tower(**settings), torch.rand(3, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    assert pools_class_token(tower)
    wanted = [images, *tower.parameters()]
    found, expected = embedding_of(tower, images), tower(images)
    assert torch.allclose(found, expected, rtol=1e-12)
    for one, other in zip(*(torch.autograd.grad(x.square().sum(), wanted) for x in (found, expected)), strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)


def test_the_last_block_computes_one_token():
    tower, seen = _tower(), []
    for block in tower.transformer.resblocks:
        block.mlp.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape[1]))
    embedding_of(tower, torch.rand(2, 3, 16, 16, dtype=torch.float64))
    assert seen == [5, 5, 1]


@pytest.mark.parametrize("tower", [_tower(pool_type="avg"), _tower(output_tokens=True), _tower(1), _tower(fold=False)])
def test_other_towers_are_asked_as_a_whole(tower):
    assert not pools_class_token(tower)


def test_an_encoder_takes_that_way_and_gives_all_tokens_where_they_are_read():
    clip = open_clip.model.CLIP(
        12,
        {"image_size": 16, "patch_size": 8, "width": 32, "layers": 3, "head_width": 16},
        {"context_length": 8, "vocab_size": 20, "width": 16, "heads": 1, "layers": 1},
    )
    visual, clip.visual = clip.visual, torch.nn.Identity()
    encoder = Encoder(visual, Preprocessing(16, (0.5,) * 3, (0.3,) * 3), TextTower(clip, None))
    seen: list[int] = []
    encoder.visual.transformer.resblocks[-1].mlp.register_forward_hook(lambda *call: seen.append(call[1][0].shape[1]))
    images = torch.rand(2, 3, 16, 16)
    assert torch.allclose(encoder(images), encoder.visual((images - 0.5) / 0.3), atol=1e-6)
    assert encoder.patch_tokens(images, layer=-1).shape == (2, 4, 32)
    assert seen == [1, 5, 5]
