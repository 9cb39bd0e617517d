"""Every checkpoint format loads to the model that was written; every misfit is refused by name."""

import json
import shutil
from dataclasses import replace

import open_clip
import pytest
import torch
from open_clip.transformer import QuickGELU
from torch import nn

from bench.errors import UsageError
from bench.models.encoders import formats, load
from bench.models.encoders.catalogue import EncoderRow, PixelFacts
from bench.models.encoders.load import load_encoder, load_row
from tests.bench.models import checkpoints

pytestmark = pytest.mark.usefixtures("cache")
PIXELS = torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
TEXTS = ["red star", "blue ring"]


def _agree(found, expected):
    """Equal but for float32 rounding, which goes with the largest value."""
    return found.shape == expected.shape and (found - expected).abs().max() < 1e-5 * expected.abs().max()


def _standardised(pixels, facts=checkpoints.OPENAI):
    return (pixels - torch.tensor(facts.mean).view(3, 1, 1)) / torch.tensor(facts.std).view(3, 1, 1)


# ---- open_clip folders and the hub -----------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
@pytest.mark.parametrize("quick", [True, False])
@torch.no_grad()
def test_an_open_clip_folder_by_path(tmp_path, weights, quick):
    config = checkpoints.open_clip_config(quick_gelu=quick)
    model = checkpoints.open_clip_folder(tmp_path / "mine", config, weights=weights)
    encoder = load_encoder(str(tmp_path / "mine"))
    assert _agree(encoder(PIXELS), model.encode_image(_standardised(PIXELS)))
    tokens = open_clip.SimpleTokenizer(context_length=16)(TEXTS)
    assert _agree(encoder.text.embed(TEXTS), model.encode_text(tokens, normalize=True))
    assert isinstance(encoder.visual.transformer.resblocks[0].mlp.gelu, QuickGELU if quick else nn.GELU)
    assert encoder.preprocessing.interpolation == "bicubic"


@torch.no_grad()
def test_a_hub_row_is_read_from_the_cache(tmp_path, cache):
    model = checkpoints.open_clip_folder(tmp_path / "repo", weights="open_clip_pytorch_model.bin")
    checkpoints.into_hub_cache(tmp_path / "repo", cache, "someone/robust-clip")
    row = EncoderRow("robust", hub="someone/robust-clip", activation="gelu", preprocessing=checkpoints.OPENAI)
    encoder = load_row(row, {})
    assert _agree(encoder(PIXELS), model.encode_image(_standardised(PIXELS)))


def test_a_pinned_revision_is_not_replaced_by_another(tmp_path, cache):
    checkpoints.open_clip_folder(tmp_path / "repo")
    snapshot = checkpoints.into_hub_cache(tmp_path / "repo", cache, "someone/robust-clip")
    row = EncoderRow("robust", hub="someone/robust-clip", revision="f" * 40)
    with pytest.raises(UsageError, match=f"another revision lies in {snapshot}") as refusal:
        load_row(row, {})
    assert f"hf download someone/robust-clip --revision {'f' * 40}" in str(refusal.value)
    digest = checkpoints.sha256(tmp_path / "repo" / "open_clip_model.safetensors")
    load_row(replace(row, sha256=digest), {})  # the very bytes: the revision does not matter
    load_row(replace(row, revision=checkpoints.COMMIT), {})


def test_what_is_not_on_this_machine_says_how_to_get_it(cache):
    with pytest.raises(UsageError, match="hf download zw123/delta_clip_l14_224") as refusal:
        load_encoder("delta-clip-l14", "paper")
    assert "HF_HOME" in str(refusal.value)
    assert str(cache) in str(refusal.value)
    assert "huggingface-cli download" in str(refusal.value)


def test_a_download_without_its_configuration_is_refused(tmp_path, cache):
    checkpoints.open_clip_folder(tmp_path / "repo")
    (tmp_path / "repo" / "open_clip_config.json").unlink()
    checkpoints.into_hub_cache(tmp_path / "repo", cache, "someone/robust-clip")
    with pytest.raises(UsageError, match=r"open_clip_config\.json of the hub's someone/robust-clip"):
        load_row(EncoderRow("robust", hub="someone/robust-clip"), {})


def test_a_row_with_a_url_names_the_download(tmp_path, cache, monkeypatch):
    monkeypatch.setenv("BENCH_WEIGHTS", str(tmp_path / "weights"))
    with pytest.raises(UsageError, match=r"curl -L --create-dirs -o .*/weights/vitb32_fare_eps_4\.pt https"):
        load_encoder("fare4-vit-b-32", "paper")


def test_a_checksum_that_differs_is_refused(tmp_path, cache):
    checkpoints.open_clip_folder(tmp_path / "repo")
    checkpoints.into_hub_cache(tmp_path / "repo", cache, "someone/robust-clip")
    with pytest.raises(UsageError, match=r"open_clip_model.safetensors has SHA-256 .* delete it"):
        load_row(EncoderRow("robust", hub="someone/robust-clip", sha256="0" * 64), {})


@torch.no_grad()
def test_open_clips_own_architecture_with_weights_from_the_cache(tmp_path, cache, monkeypatch):
    """How the suite's plain CLIP is loaded; here with a small architecture that is added to open_clip's list."""
    config = checkpoints.open_clip_config(quick_gelu=True)
    (tmp_path / "small-quickgelu.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "small-quickgelu.json")
    model = checkpoints.open_clip_folder(tmp_path / "repo", config)
    checkpoints.into_hub_cache(tmp_path / "repo", cache, "timm/small.openai")
    row = EncoderRow(
        "clip",
        hub="timm/small.openai",
        pretrained="openai",
        architecture="small-quickgelu",
        activation="quick_gelu",
        preprocessing=checkpoints.OPENAI,
    )
    encoder = load_row(row, {})
    assert _agree(encoder(PIXELS), model.encode_image(_standardised(PIXELS)))
    tower = tmp_path / "fare_eps_2.pt"
    torch.save({"vision_encoder_state_dict": checkpoints.open_clip_model(config, 5).visual.state_dict()}, tower)
    replaced = load_row(EncoderRow("fare", base="clip", visual=str(tower)), {"clip": row})
    assert torch.equal(replaced.text.embed(TEXTS), encoder.text.embed(TEXTS))
    assert not torch.allclose(replaced(PIXELS), encoder(PIXELS), atol=0.1)


@torch.no_grad()
def test_an_encoder_with_a_tokenizer_and_pixels_of_its_own(tmp_path, cache):
    """As DeltaCLIP: average pooling, no first norm, ImageNet's normalisation, squashed images, a BERT vocabulary."""
    config = checkpoints.open_clip_config()
    config["vision_cfg"] |= {"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True}
    config["text_cfg"] |= {"hf_tokenizer_name": "bert-base-uncased", "vocab_size": 87, "no_causal_mask": True}
    facts = PixelFacts(open_clip.constants.IMAGENET_MEAN, open_clip.constants.IMAGENET_STD, "bilinear")
    pixels = {"mean": facts.mean, "std": facts.std, "interpolation": "bilinear", "resize_mode": "squash"}
    model = checkpoints.open_clip_folder(tmp_path / "repo", config, pixels)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(checkpoints.TOKENIZER / name, tmp_path / "repo")
    snapshot = checkpoints.into_hub_cache(tmp_path / "repo", cache, "zw123/delta")
    row = EncoderRow("delta", hub="zw123/delta", preprocessing=facts)
    encoder = load_row(row, {})
    assert encoder.preprocessing.resize_mode == "squash"
    assert _agree(encoder(PIXELS), model.encode_image(_standardised(PIXELS, facts)))
    assert encoder.text.tokenizer(["red star"])[0, :4].count_nonzero() > 1
    assert encoder.patch_tokens(PIXELS).shape == (2, 16, 32)
    with pytest.raises(UsageError, match="says mean"):
        load_row(replace(row, preprocessing=checkpoints.OPENAI), {})
    (snapshot / "tokenizer.json").unlink()
    with pytest.raises(UsageError, match=r"tokenizer\.json or vocab\.txt of the hub's zw123/delta"):
        load_row(row, {})


@torch.no_grad()
def test_a_convnext_gives_embeddings_but_no_patch_tokens(tmp_path):
    config = checkpoints.open_clip_config()
    config["vision_cfg"] = {
        "timm_model_name": "convnext_atto",
        "timm_pool": "",
        "timm_proj": "linear",
        "image_size": 32,
    }
    model = checkpoints.open_clip_folder(tmp_path / "mine", config)
    encoder = load_encoder(str(tmp_path / "mine"))
    pixels = torch.rand(1, 3, 32, 32)
    assert _agree(encoder(pixels), model.encode_image(_standardised(pixels)))
    assert encoder.at("bf16")(pixels).dtype == torch.float32
    with pytest.raises(UsageError, match="no vision transformer"):
        encoder.patch_tokens(pixels)
    with pytest.raises(UsageError, match=r"timm_model_name convnext_atto, .* convnext_base"):
        load.check_facts(
            EncoderRow("x", architecture="convnext_base_w"),
            replace(formats.open_clip_folder(tmp_path / "mine"), architecture=config | {"embed_dim": 640}),
        )


# ---- What the catalogue says against what the checkpoint says --------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"activation": "quick_gelu"}, "says activation gelu, but these weights were trained with quick_gelu"),
        ({"image_size": 224}, "says image size 28, .* 224"),
        ({"preprocessing": PixelFacts((0.485, 0.456, 0.406), checkpoints.OPENAI.std, "bicubic")}, "says mean"),
        ({"preprocessing": PixelFacts(checkpoints.OPENAI.mean, (0.229, 0.224, 0.225), "bicubic")}, "says std"),
        ({"preprocessing": replace(checkpoints.OPENAI, interpolation="bilinear")}, "says interpolation bicubic"),
        ({"architecture": "ViT-B-32"}, "says embedding width 24, .* 512"),
        ({"architecture": "ViT-B-23"}, "did you mean 'ViT-B-32'"),
    ],
)
def test_a_checkpoint_that_contradicts_its_row_is_refused(tmp_path, cache, facts, message):
    checkpoints.open_clip_folder(tmp_path / "repo")
    checkpoints.into_hub_cache(tmp_path / "repo", cache, "someone/robust-clip")
    row = EncoderRow("robust", hub="someone/robust-clip", preprocessing=checkpoints.OPENAI)
    load_row(row, {})
    with pytest.raises(UsageError, match=message):
        load_row(replace(row, **facts), {})


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.pop("preprocess_cfg"), "lacks model_cfg or preprocess_cfg"),
        (lambda c: c["preprocess_cfg"].pop("mean"), "lacks mean or std"),
        (lambda c: c["preprocess_cfg"].update(size=336), "size 336, the image tower takes 28"),
        (lambda c: c["preprocess_cfg"].update(resize_mode="longest"), "resize_mode 'longest'"),
        (lambda c: c["preprocess_cfg"].update(interpolation="random"), "interpolation 'random'"),
        (lambda c: c["model_cfg"]["text_cfg"].update(vocab_path="x"), "cannot build .*vocab_path"),
        (lambda c: c["model_cfg"]["vision_cfg"].update(layers=2), "unknown"),
        (lambda c: c["model_cfg"]["vision_cfg"].update(width=4096), "describes .* parameters, .* not of one model"),
        (lambda c: c["model_cfg"]["vision_cfg"].update(image_size=35), "positional_embedding"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(tmp_path, edit, message):
    checkpoints.open_clip_folder(tmp_path / "mine")
    path = tmp_path / "mine" / "open_clip_config.json"
    config = json.loads(path.read_text())
    edit(config)
    path.write_text(json.dumps(config))
    with pytest.raises(UsageError, match=message) as refusal:
        load_encoder(str(tmp_path / "mine"))
    assert str(tmp_path / "mine") in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git-lfs pointer"),
        (b"<!DOCTYPE html>", "HTML page"),
        (b"", "empty file"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{", "not a checkpoint"),
    ],
)
def test_a_folder_whose_weights_are_no_weights_is_refused(tmp_path, content, message):
    checkpoints.open_clip_folder(tmp_path / "mine")
    (tmp_path / "mine" / "open_clip_model.safetensors").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        load_encoder(str(tmp_path / "mine"))


def test_folders_without_weights_or_configuration_are_refused(tmp_path):
    checkpoints.open_clip_folder(tmp_path / "mine")
    (tmp_path / "mine" / "open_clip_model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"holds no weights; expected open_clip_model\.safetensors"):
        load_encoder(str(tmp_path / "mine"))
    (tmp_path / "mine" / "open_clip_config.json").write_text("<html>")
    with pytest.raises(UsageError, match="is not JSON"):
        load_encoder(str(tmp_path / "mine"))
