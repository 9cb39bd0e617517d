"""SigLIP and SigLIP 2 in the form of timm's repositories: transformers' own model says the same of the same weights."""

import json
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch.nn import functional as F

from attacks.apgd import apgd
from attacks.threat import ThreatModel
from bench.errors import UsageError
from bench.models.encoders import catalogue, load
from bench.models.encoders.catalogue import EncoderRow
from bench.models.encoders.load import load_encoder, load_row
from bench.models.encoders.tokens import token_facts
from tasks.base import Dataset, Sample
from tasks.embedding import EmbeddingDistance
from tasks.zeroshot import ZeroShot
from tests.bench.models import checkpoints, siglip

IMAGES = torch.rand(4, 3, siglip.SIZE, siglip.SIZE, generator=torch.Generator().manual_seed(0))
NAMES = ("red star", "blue ring", "red circle", "blue star")
SAMPLES = [Sample(str(k), Image.new("RGB", (8, 8)), "", (NAMES[k],), str(k), k) for k in range(4)]
DATASET = Dataset("tiny", tuple(SAMPLES), NAMES, ("a photo of a {c}",))


@pytest.fixture(scope="module", params=["siglip", "siglip2"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def place(tmp_path_factory, kind):
    return tmp_path_factory.mktemp("hub") / kind


@pytest.fixture(scope="module")
def model(place, kind):
    return siglip.folder(place, kind)


@pytest.fixture(scope="module")
def encoder(place, model):
    return load_encoder(str(place))


def _close(found, expected):
    return found.shape == expected.shape and (found - expected).abs().max() < 1e-5 * expected.abs().max()


@torch.no_grad()
def test_embeddings_tokens_and_logits_are_those_of_transformers_own_model(encoder, model, kind):
    theirs = siglip.in_transformers(model, kind)
    texts = [f"a photo of a {name}" for name in NAMES]
    ids = encoder.text.tokenizer(texts)
    pad = 0 if kind == "siglip2" else 1
    assert ids.shape == (4, siglip.LENGTH)
    assert (ids[:, -1] == pad).all()
    assert ids[0].tolist() != ids[1].tolist()
    expected = theirs(input_ids=ids, pixel_values=IMAGES * 2 - 1, output_hidden_states=True)
    assert _close(F.normalize(encoder(IMAGES), dim=-1), expected.image_embeds)
    assert _close(encoder.text.embed(texts), expected.text_embeds)
    assert _close(ZeroShot(DATASET).bind(encoder).logits(IMAGES), expected.logits_per_image)
    for layer in (-1, -2, 1):
        hidden = theirs.vision_model(IMAGES * 2 - 1, output_hidden_states=True).hidden_states[layer]
        assert _close(encoder.patch_tokens(IMAGES, layer), hidden)
    assert (encoder.width, encoder.n_patches) == (siglip.WIDTH, (siglip.SIZE // siglip.PATCH) ** 2)


def test_texts_are_canonicalised(encoder):
    """As in SigLIP's training: in small letters, without punctuation."""
    assert torch.equal(
        encoder.text.tokenizer(["A photo, of a RED_star!"]), encoder.text.tokenizer(["a photo of a red star"])
    )


def test_pixels_are_squashed_as_open_clip_does(encoder, place):
    facts = json.loads((place / "open_clip_config.json").read_text())["preprocess_cfg"]
    transform = image_transform_v2(PreprocessCfg(**facts | {"size": siglip.SIZE}), is_train=False)
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (facts["mean"], facts["std"]))
    for width, height in ((50, 20), (20, 50), (33, 32), (32, 32)):
        values = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
        picture = Image.fromarray(values)
        pixels = encoder.preprocess(picture)
        assert torch.allclose((pixels - mean) / std, transform(picture), atol=2e-6)
    assert encoder.preprocessing.resize_mode == "squash"


def test_the_gradient_of_the_logits_equals_central_differences(place, model):
    encoder = load_encoder(str(place)).double()
    weights = encoder.text.classifier(NAMES, DATASET.templates).double()
    loss = lambda x: F.cross_entropy(5 * F.normalize(encoder(x), dim=-1) @ weights, torch.arange(4))  # noqa: E731
    generator = torch.Generator().manual_seed(1)
    leaf = IMAGES.double().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf), leaf)
    for _ in range(4):
        direction = F.normalize(torch.randn(IMAGES.shape, generator=generator, dtype=torch.float64).flatten(), dim=0)
        step = 1e-5 * direction.view(IMAGES.shape)
        with torch.no_grad():
            ahead, behind = (loss(IMAGES.double() + s) for s in (step, -step))
        assert (gradient.flatten() @ direction).item() == pytest.approx((ahead - behind).item() / 2e-5, rel=1e-5)


def test_attacked_one_by_one_or_together(encoder):
    victim = ZeroShot(DATASET).bind(encoder)
    threat = ThreatModel("linf", 8 / 255)

    def attacked(rows):
        objective = victim.objective(IMAGES[rows], [SAMPLES[k] for k in rows], "untargeted")
        return apgd(objective, IMAGES[rows], threat, steps=5, stop_when_fooled=False).images

    together = attacked([0, 1, 2, 3])
    alone = torch.cat([attacked([k]) for k in range(4)])
    assert (together - IMAGES).abs().max() > 7 / 255
    assert (together - alone).abs().max() < 1e-5


def test_the_bias_moves_no_class_and_no_loss(encoder):
    """Each class is decided by its own sigmoid; the largest logit is the most probable class, whatever the bias."""
    plain = ZeroShot(DATASET).bind(encoder)
    assert plain.bias == -7.5
    other = replace(plain, bias=3.0)
    said = [[a.text for a in victim.predict(IMAGES, SAMPLES)] for victim in (plain, other)]
    assert said[0] == said[1]
    losses = [v.objective(IMAGES, SAMPLES, "untargeted")(IMAGES, torch.arange(4)).loss for v in (plain, other)]
    assert torch.allclose(losses[0], losses[1], atol=1e-5)


def test_the_attack_on_embeddings_pushes_patch_tokens(encoder):
    distance = EmbeddingDistance(encoder, IMAGES)
    rows = torch.arange(4)
    assert distance(IMAGES, rows).loss.abs().max() < 1e-5
    leaf = (IMAGES + 0.01).requires_grad_()
    (gradient,) = torch.autograd.grad(distance(leaf, rows).loss.sum(), leaf)
    assert gradient.flatten(1).norm(dim=1).min() > 0


# ---- Refusals, rows and full-size names ------------------------------------------------------------------------------


def test_a_repository_without_its_tokenizer_says_what_is_missing(tmp_path):
    siglip.folder(tmp_path / "mine")
    (tmp_path / "mine" / "tokenizer.json").unlink()
    with pytest.raises(UsageError, match=r"no tokenizer that can be read.*tokenizer\.json"):
        load_encoder(str(tmp_path / "mine"))


def test_transformers_format_is_refused_with_the_way_out(tmp_path):
    siglip.in_transformers(siglip.folder(tmp_path / "mine"), "siglip").save_pretrained(tmp_path / "theirs")
    with pytest.raises(UsageError, match=r"a 'siglip' model, not a 'clip' one; of a SigLIP, timm's repository"):
        load_encoder(str(tmp_path / "theirs"))


@pytest.mark.usefixtures("cache")
def test_a_row_of_the_hub_and_a_pixel_pipeline_that_is_not_its(tmp_path, cache):
    siglip.folder(tmp_path / "repo")
    checkpoints.into_hub_cache(tmp_path / "repo", cache, "timm/tiny-siglip")
    row = EncoderRow("tiny", hub="timm/tiny-siglip", preprocessing=catalogue.rows("paper")["siglip-b-16"].preprocessing)
    assert load_row(row, {}).text.bias == -7.5
    wrong = replace(row.preprocessing, resize_mode="shortest")
    with pytest.raises(UsageError, match="says resize mode squash, but these weights were trained with shortest"):
        load_row(replace(row, preprocessing=wrong), {})


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("siglip-b-16", (768, 196, 12)),
        ("siglip-so400m-14-384", (1152, 729, 27)),
        ("siglip2-b-16-256", (768, 256, 12)),
    ],
)
def test_full_size_rows_describe_models_that_open_clip_builds(name, facts):
    row = catalogue.rows("paper")[name]
    with torch.device("meta"):
        clip = open_clip.create_model(row.architecture, load_weights=False, device="meta")
    found = token_facts(clip.visual)
    assert (found.width, found.n_patches, found.depth) == facts
    assert clip.visual.image_size[0] == row.image_size
    assert clip.logit_bias is not None
    tag = open_clip.get_pretrained_cfg(row.architecture, "webli")
    assert tag["hf_hub"] == f"{row.hub}/"
    assert load._tagged(row.architecture, "webli").preprocessing == row.preprocessing
