"""open_clip and transformers agree after conversion: tokens, pooled outputs, texts; both ways, any depth and size."""

import copy

import open_clip
import pytest
import torch
from open_clip.transformer import QuickGELU, VisionTransformer
from torch import nn
from transformers import CLIPModel, CLIPVisionModel, CLIPVisionModelWithProjection

from bench.errors import UsageError
from bench.models.encoders.convert import (
    activation_of,
    to_clip_vision_model,
    to_open_clip,
    to_open_clip_tower,
    vision_config,
)
from bench.models.encoders.encoder import Encoder, Preprocessing, TextTower
from tests.bench.models import checkpoints

SHAPES = [  # image, patch, width, layers, heads, mlp ratio, activation
    (48, 16, 64, 3, 4, 4.0, nn.GELU),
    (28, 7, 32, 1, 2, 4.0, QuickGELU),
    (30, 10, 48, 5, 3, 4.9231, QuickGELU),
    (42, 14, 32, 2, 4, 2.25, nn.GELU),
]


def _agree(found, expected):
    """Equal but for float32 rounding, which goes with the largest value."""
    return found.shape == expected.shape and (found - expected).abs().max() < 1e-5 * expected.abs().max()


def _pixels(batch, size):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(size))


def _tower(size, patch, width, layers, heads, ratio, activation):
    visual = VisionTransformer(size, patch, width, layers, heads, ratio, output_dim=24, act_layer=activation)
    return checkpoints.randomise(visual, seed=size)


def _encoder(visual, size):
    return Encoder(visual, Preprocessing(size, (0, 0, 0), (1, 1, 1)), TextTower(nn.Identity(), None))


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_to_transformers(shape):
    visual, pixels = _tower(*shape), _pixels(2, shape[0])
    bare = to_clip_vision_model(visual)(pixels, output_hidden_states=True)
    assert _agree(bare.pooler_output @ visual.proj, visual(pixels))
    encoder = _encoder(visual, shape[0])
    for layer in range(-shape[3], 0):
        assert _agree(encoder.patch_tokens(pixels, layer), bare.hidden_states[layer][:, 1:])
        positive = shape[3] + 1 + layer  # transformers' hidden_states[0] are the embeddings
        assert torch.equal(encoder.patch_tokens(pixels, positive), encoder.patch_tokens(pixels, layer))


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_there_and_back_is_the_same_state(shape):
    visual = _tower(*shape)
    back = to_open_clip_tower(to_clip_vision_model(visual), visual.proj.detach())
    assert activation_of(back) == activation_of(visual)
    ours, theirs = visual.state_dict(), back.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert torch.equal(back(torch.ones(1, 3, shape[0], shape[0])), visual(torch.ones(1, 3, shape[0], shape[0])))


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu", "gelu_pytorch_tanh"])
@pytest.mark.parametrize("changes", [{}, {"layer_norm_eps": 1e-2, "num_hidden_layers": 1, "intermediate_size": 45}])
@torch.no_grad()
def test_from_transformers(activation, changes):
    config, pixels = checkpoints.vision_config(activation, **changes), _pixels(2, 28)
    projected = checkpoints.randomise(CLIPVisionModelWithProjection(config), 1)
    visual = to_open_clip_tower(projected)
    assert activation_of(visual) == activation
    assert _agree(visual(pixels), projected(pixels).image_embeds)
    bare = checkpoints.randomise(CLIPVisionModel(config), 2)
    visual = to_open_clip_tower(bare, torch.eye(32))
    assert _agree(visual(pixels), bare(pixels).pooler_output)
    assert vision_config(visual).layer_norm_eps == config.layer_norm_eps


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
@pytest.mark.parametrize("end", [2, 86, 3])
@torch.no_grad()
def test_a_whole_clip_from_transformers(tmp_path, activation, end):
    """End tokens: 2 stands for the highest id in old configurations; else the first end token counts."""
    theirs: CLIPModel = checkpoints.clip_model_folder(tmp_path, activation, text={"eos_token_id": end})
    ours = to_open_clip(theirs)
    ids = torch.randint(5, 80, (3, 24))
    ids[:, 9] = ids[0, 15] = 86 if end == 2 else end
    pixels = _pixels(3, 28)
    expected = theirs(input_ids=ids, pixel_values=pixels)
    assert _agree(ours.encode_text(ids, normalize=True), expected.text_embeds)
    assert _agree(ours.encode_image(pixels, normalize=True), expected.image_embeds)
    assert ours.logit_scale.item() == pytest.approx(theirs.logit_scale.item())


@torch.no_grad()
def test_patch_tokens_come_before_the_final_norm():
    """open_clip applies its final norm to the tokens it returns beside the embedding; LLaVA reads them before."""
    visual = _tower(*SHAPES[0])
    pixels = _pixels(2, 48)
    tokens = _encoder(visual, 48).patch_tokens(pixels, layer=-1)
    visual.output_tokens = True
    _, normed = visual(pixels)
    assert _agree(visual.ln_post(tokens), normed)
    assert not torch.allclose(tokens, normed, atol=0.1)


def test_a_converted_tower_keeps_the_gradient():
    visual = _tower(*SHAPES[1])
    leaf = _pixels(1, 28).requires_grad_()
    (ours,) = torch.autograd.grad(visual(leaf).square().sum(), leaf)
    theirs = to_clip_vision_model(visual)(leaf).pooler_output @ visual.proj
    (theirs,) = torch.autograd.grad(theirs.square().sum(), leaf)
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


# ---- Refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"no_ln_pre": True}, "no norm before the blocks"),
        ({"pool_type": "avg"}, "class token"),
        ({"final_ln_after_pool": True}, "class token"),
        ({"ls_init_value": 0.1}, "ls_1"),
        ({"act_layer": nn.SiLU}, "activation is unknown"),
    ],
)
def test_a_tower_without_an_equal_is_refused(options, message):
    visual = VisionTransformer(28, 7, 32, 2, 2, 4.0, output_dim=24, **options)
    with pytest.raises(UsageError, match=message):
        to_clip_vision_model(visual)


def test_a_convnext_is_refused():
    visual = open_clip.timm_model.TimmModel("convnext_atto", embed_dim=24, image_size=32)
    with pytest.raises(UsageError, match="TimmModel"):
        vision_config(visual)
    with pytest.raises(UsageError, match="no patch tokens"):
        _encoder(visual, 32).patch_tokens(torch.rand(1, 3, 32, 32))
    with pytest.raises(UsageError, match="no patch tokens"):
        _ = _encoder(visual, 32).width


def test_an_unknown_activation_and_a_misfit_projection_are_refused():
    with pytest.raises(UsageError, match="'relu'"):
        to_open_clip_tower(CLIPVisionModel(checkpoints.vision_config("relu")), torch.eye(32))
    model = CLIPVisionModel(checkpoints.vision_config())
    for projection in (None, torch.eye(31)):
        with pytest.raises(UsageError, match="width 32 needs a projection"):
            to_open_clip_tower(model, projection)


def test_towers_of_two_activations_are_refused(tmp_path):
    model = checkpoints.clip_model_folder(tmp_path, "gelu", text={"hidden_act": "quick_gelu"})
    with pytest.raises(UsageError, match="hidden_act"):
        to_open_clip(model)


@pytest.mark.parametrize("layer", [-3, 3, 0])
def test_a_layer_that_is_not_there_is_refused(layer):
    encoder = _encoder(_tower(*SHAPES[3]), 42)
    with pytest.raises(UsageError, match="2 blocks"):
        encoder.patch_tokens(torch.rand(1, 3, 42, 42), layer)


# ---- Full size -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-L-14-quickgelu"])
@torch.no_grad()
def test_full_size_towers(name):
    torch.manual_seed(0)
    visual = open_clip.create_model(name).visual.eval()
    pixels = _pixels(2, 224)
    theirs = to_clip_vision_model(copy.deepcopy(visual))
    found = theirs(pixels, output_hidden_states=True)
    scale = visual(pixels).abs().max()
    assert torch.allclose(found.pooler_output @ visual.proj, visual(pixels), atol=1e-4 * scale)
    back = to_open_clip_tower(theirs, visual.proj.detach())
    assert torch.equal(back(pixels), visual(pixels))
    tokens = _encoder(visual, 224).patch_tokens(pixels)
    assert torch.allclose(tokens, found.hidden_states[-2][:, 1:], atol=1e-4 * tokens.abs().max())
