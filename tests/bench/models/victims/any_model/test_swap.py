"""An encoder in any model's tower: the same features, the same LLaVA as its own family's, refusals with reasons."""

from types import SimpleNamespace

import pytest
import torch
from open_clip.transformer import QuickGELU, VisionTransformer
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from bench.errors import UsageError
from bench.models.encoders.encoder import Encoder, Preprocessing, TextTower
from bench.models.victims.any_model.load import load_any_model
from bench.models.victims.any_model.swap import _interpolated
from bench.models.victims.llava.model import load_llava
from tests.bench.models.llava_checkpoint import NATIVE, write_llava
from tests.bench.models.victims.any_model.kinds import write

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)
QUESTIONS = ["what is in the image?", "how many birds are near the sea, and is the car red?", "a?"]
ANSWERS = ["a cat on a sofa.", "two", "yes"]


def clip_encoder(size=28, mlp=1.5, act=QuickGELU, mean=MEAN, heads=2):
    torch.manual_seed(1)
    visual = VisionTransformer(size, 14, 32, 3, heads, mlp, output_dim=16, act_layer=act)
    for parameter in visual.parameters():
        nn.init.normal_(parameter, mean=0.0 if parameter.dim() > 1 else 0.5, std=0.15)
    return Encoder(visual, Preprocessing(size, mean, STD), TextTower(nn.Identity(), None))


def siglip_encoder(act="gelu_tanh", mlp=1.5, mean=HALF):
    import timm

    torch.manual_seed(2)
    shape = {"img_size": 28, "patch_size": 14, "embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_ratio": mlp}
    trunk = timm.create_model("vit_base_patch16_siglip_224", num_classes=0, act_layer=act, **shape)
    visual = nn.Module()
    visual.trunk = trunk.eval()
    return Encoder(visual, Preprocessing(28, mean, HALF, resize_mode="squash"), TextTower(nn.Identity(), None))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("kinds")
    kinds = ("LLaVA-NeXT", "PaliGemma", "Qwen2.5-VL")
    return {kind: str(write(kind, base / kind)) for kind in kinds} | {"LLaVA": str(write_llava(base / "llava"))}


def _images(size, count=3):
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(3))


def _scores(victim, images):
    leaf = images.clone().requires_grad_()
    scores = victim.answers(QUESTIONS, ANSWERS)(leaf, torch.arange(3))
    (gradient,) = torch.autograd.grad(scores.nll.sum(), leaf)
    return scores, gradient


@pytest.mark.parametrize("swapped", [False, True])
def test_llavas_own_family_and_this_one_agree(folders, swapped):
    encoder = clip_encoder(size=NATIVE, mlp=2.0) if swapped else None
    own = load_llava(folders["LLaVA"], encoder, tower="encoder" if swapped else "native")
    found, images = load_any_model(folders["LLaVA"], encoder), _images((NATIVE, NATIVE))
    (wanted, gradient), (scores, other) = _scores(own, images), _scores(found, images)
    torch.testing.assert_close(scores.nll, wanted.nll, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(other, gradient, rtol=1e-3, atol=1e-5 * float(gradient.abs().max()))
    assert torch.equal(scores.greedy, wanted.greedy)
    assert torch.equal(scores.first, wanted.first)
    assert found.generate(images, QUESTIONS, max_new_tokens=8) == own.generate(images, QUESTIONS, max_new_tokens=8)
    assert found.token_texts()[:300] == own.token_texts()[:300]


def test_the_features_are_those_of_the_encoder(folders):
    encoder = clip_encoder()
    victim = load_any_model(folders["LLaVA-NeXT"], encoder)
    tower = next(m for name, m in victim.model.named_modules() if name.endswith("vision_tower"))
    images = _images((28, 28))
    shown = (images - encoder.mean) / encoder.std
    found = tower(shown, output_hidden_states=True).hidden_states[-2][:, 1:]
    torch.testing.assert_close(found, encoder.patch_tokens(images), rtol=1e-4, atol=1e-4)
    assert victim.facts([(28, 28)])["tower"] == "encoder"
    assert load_any_model(folders["LLaVA-NeXT"], None).facts([(28, 28)])["tower"] == "native"


def test_a_siglip_goes_into_a_model_around_a_siglip(folders):
    encoder = siglip_encoder()
    victim, plain = load_any_model(folders["PaliGemma"], encoder), load_any_model(folders["PaliGemma"], None)
    images = _images((28, 28))
    found = victim.answers(QUESTIONS, ANSWERS)(images, torch.arange(3)).nll
    assert not torch.allclose(found, plain.answers(QUESTIONS, ANSWERS)(images, torch.arange(3)).nll)
    tower = next(m for name, m in victim.model.named_modules() if name.endswith("vision_tower"))
    wanted = encoder.visual.trunk.forward_features((images - 0.5) / 0.5)
    torch.testing.assert_close(tower((images - 0.5) / 0.5).last_hidden_state, wanted, rtol=1e-4, atol=1e-4)


def test_an_encoder_of_another_size_gets_its_positions_interpolated(folders):
    victim = load_any_model(folders["LLaVA-NeXT"], clip_encoder(size=42))
    said = victim.facts([(28, 28)])["tower"]
    assert said == "encoder, position embeddings interpolated from 3x3 to 2x2"
    embeddings = CLIPVisionModel(CLIPVisionConfig(hidden_size=8, num_attention_heads=2, image_size=42, patch_size=14))
    embeddings = next(m for m in embeddings.modules() if hasattr(m, "interpolate_pos_encoding"))
    table, _ = _interpolated(embeddings.position_embedding.weight, 1 + 25)
    wanted = embeddings.interpolate_pos_encoding(torch.zeros(1, 26, 8), 70, 70)
    torch.testing.assert_close(table, wanted[0])


@pytest.mark.parametrize(
    ("kind", "encoder", "reason"),
    [
        ("Qwen2.5-VL", clip_encoder, "no ViT of CLIP or SigLIP.*--tower native"),
        ("LLaVA-NeXT", lambda: clip_encoder(mlp=2.0), "intermediate_size 48, the encoder 64"),
        ("LLaVA-NeXT", lambda: clip_encoder(act=nn.GELU), "hidden_act quick_gelu, the encoder gelu"),
        ("LLaVA-NeXT", lambda: clip_encoder(heads=4), "num_attention_heads 2, the encoder 4"),
        ("LLaVA-NeXT", lambda: clip_encoder(mean=HALF), "normalises with mean"),
        ("PaliGemma", lambda: clip_encoder(mean=HALF), "std"),
        ("PaliGemma", lambda: siglip_encoder(mlp=2.0), "another shape"),
        ("PaliGemma", lambda: siglip_encoder(act="relu"), "does not compute what the encoder's does"),
    ],
)
def test_what_does_not_fit_is_refused(folders, kind, encoder, reason):
    with pytest.raises(UsageError, match=reason):
        load_any_model(folders[kind], encoder())


def test_a_clip_does_not_go_into_a_siglip_tower(folders):
    encoder = SimpleNamespace(visual=nn.Identity(), preprocessing=Preprocessing(28, HALF, HALF))
    with pytest.raises(UsageError, match="is a SigLIP ViT, the encoder's a Identity; choose a SigLIP encoder"):
        load_any_model(folders["PaliGemma"], encoder)
