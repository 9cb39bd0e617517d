"""CLIPs whose image tower is a ResNet or a ConvNeXt, and what their lack of patch tokens means."""

import open_clip
import pytest
import torch
from open_clip.modified_resnet import ModifiedResNet
from torch.nn import functional as F

from bench.errors import UsageError
from bench.models.encoders.load import load_encoder
from bench.train.base import load_base
from bench.train.objectives import fare_patches
from bench.train.towers import checkpoint_activations, feature_tower
from tasks.embedding import EmbeddingDistance
from tests.bench.models import checkpoints

TOWERS = {
    "resnet": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16, "head_width": 16, "patch_size": None},
    "convnext": {"image_size": 32, "timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": "linear"},
    "vit": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "avg", "timm_proj": "linear"},
}


@pytest.fixture(scope="module", params=TOWERS)
def tower(request, tmp_path_factory):
    """The model, the encoder that loads from its folder, images, and whether it has patch tokens."""
    place = tmp_path_factory.mktemp("trunks") / request.param
    config = checkpoints.open_clip_config()
    config["vision_cfg"] = TOWERS[request.param]
    size = config["vision_cfg"]["image_size"]
    pixels = {"mean": checkpoints.OPENAI.mean, "std": checkpoints.OPENAI.std, "size": size}
    model = checkpoints.open_clip_folder(place, config, pixels)
    images = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    return model, place, images, request.param == "vit"


def _standardised(images):
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (checkpoints.OPENAI.mean, checkpoints.OPENAI.std))
    return (images - mean) / std


@torch.no_grad()
def test_embeddings_are_open_clips_whatever_the_batch(tower):
    model, place, images, _ = tower
    encoder = load_encoder(str(place))
    together = encoder(images)
    expected = model.encode_image(_standardised(images))
    assert (together - expected).abs().max() < 1e-5 * expected.abs().max()
    alone = torch.cat([encoder(image[None]) for image in images])
    assert (together - alone).abs().max() < 1e-5 * expected.abs().max()
    assert encoder.text.bias == 0


def test_gradients_equal_central_differences(tower):
    _, place, images, _ = tower
    encoder = load_encoder(str(place)).double()
    anchor = torch.randn(24, generator=torch.Generator().manual_seed(1)).double()
    loss = lambda x: F.cosine_similarity(encoder(x), anchor, dim=-1).sum()  # noqa: E731
    leaf = images.double().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf), leaf)
    direction = F.normalize(torch.randn(gradient.numel(), generator=torch.Generator().manual_seed(2)).double(), dim=0)
    step = 1e-6 * direction.view(images.shape)
    with torch.no_grad():
        slope = (loss(leaf + step) - loss(leaf - step)).item() / 2e-6
    assert (gradient.flatten() @ direction).item() == pytest.approx(slope, rel=1e-4)


def test_patch_tokens_where_there_are_some_and_a_refusal_elsewhere(tower):
    _, place, images, has_tokens = tower
    encoder = load_encoder(str(place))
    if has_tokens:
        assert encoder.patch_tokens(images).shape == (3, 100, 64)
        assert EmbeddingDistance(encoder, images)(images, torch.arange(3)).loss.shape == (3,)
        whole = feature_tower(encoder, fare_patches)(images)
        assert torch.allclose(whole.embedding, encoder(images), atol=1e-5)
        assert torch.allclose(whole.patches, encoder.patch_tokens(images), atol=1e-5)
        return
    with pytest.raises(UsageError, match=r"\((ModifiedResNet|ConvNeXt)\) is no vision transformer.*attack on embed"):
        EmbeddingDistance(encoder, images)
    with pytest.raises(UsageError, match="is no vision transformer"):
        feature_tower(encoder, fare_patches)


def test_activations_are_recomputed_or_it_is_said_that_they_are_not(tower):
    encoder = load_encoder(str(tower[1]))
    if isinstance(encoder.visual, ModifiedResNet):
        with pytest.raises(UsageError, match="ModifiedResNet has no activation checkpointing"):
            checkpoint_activations(encoder)
    else:
        checkpoint_activations(encoder)


def test_the_trainer_loads_the_same_tower(tower):
    _, place, images, _ = tower
    base = load_base(str(place), None)
    with torch.no_grad():
        assert torch.equal(base.encoder(images), load_encoder(str(place))(images))


@pytest.mark.parametrize("name", ["RN50-quickgelu", "convnext_base_w"])
def test_full_size_names_build(name):
    with torch.device("meta"):
        clip = open_clip.create_model(name, load_weights=False, device="meta")
    assert sum(p.numel() for p in clip.visual.parameters()) > 3e7
