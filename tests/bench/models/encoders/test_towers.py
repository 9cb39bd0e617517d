"""Image towers by path and transformers folders load to the model that was written; every misfit is refused."""

import json
import shutil
from dataclasses import replace

import open_clip
import pytest
import torch
from open_clip.model import set_model_preprocess_cfg
from open_clip.push_to_hf_hub import save_config_for_hf
from safetensors.torch import load_file, save_file
from torch import nn

from bench.errors import UsageError
from bench.models.encoders import catalogue, load
from bench.models.encoders.catalogue import EncoderRow
from bench.models.encoders.load import load_encoder, load_row
from tests.bench.models import checkpoints

pytestmark = pytest.mark.usefixtures("cache")
PIXELS = torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
TEXTS = ["red star", "blue ring"]
PAPER = catalogue.rows("paper")


def _agree(found, expected):
    """Equal but for float32 rounding, which goes with the largest value."""
    return found.shape == expected.shape and (found - expected).abs().max() < 1e-5 * expected.abs().max()


def _standardised(pixels, facts=checkpoints.OPENAI):
    return (pixels - torch.tensor(facts.mean).view(3, 1, 1)) / torch.tensor(facts.std).view(3, 1, 1)


# ---- Image towers by path, and what their activation is --------------------------------------------------------------


def _architecture(tmp_path, name, **config):
    (tmp_path / f"{name}.json").write_text(json.dumps(checkpoints.open_clip_config(**config)))
    open_clip.add_model_config(tmp_path / f"{name}.json")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("whole", [False, True])
@torch.no_grad()
def test_a_state_dict_takes_the_suites_text_tower_and_activation(tmp_path, world, suffix, whole):
    model = checkpoints.open_clip_model(checkpoints.open_clip_config(quick_gelu=True), seed=3)
    state = {f"module.{k}": v for k, v in model.state_dict().items()} if whole else model.visual.state_dict()
    path = tmp_path / f"mine{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save({"epoch": 1, "state_dict": state}, path)
    encoder = load_encoder(str(path), "small")
    assert _agree(encoder(PIXELS), model.encode_image(_standardised(PIXELS)))
    tokens = open_clip.SimpleTokenizer(context_length=16)(TEXTS)
    expected = (model if whole else world).encode_text(tokens, normalize=True)
    assert _agree(encoder.text.embed(TEXTS), expected)


def test_arch_must_say_the_activation_of_a_state_dict(tmp_path, world, monkeypatch):
    _architecture(tmp_path, "tiny")
    _architecture(tmp_path, "tiny-quickgelu", quick_gelu=True)
    row = {"model": str(tmp_path / "plain"), "architecture": "tiny-quickgelu", "activation": "quick_gelu"}
    monkeypatch.setattr(catalogue, "_catalogue", lambda: {"aliases": {}, "small": {"clip": row}})
    torch.save(world.visual.state_dict(), tmp_path / "mine.pt")
    assert load_encoder(str(tmp_path / "mine.pt"), "small", "tiny-quickgelu").width == 32
    with pytest.raises(UsageError, match=r"give --arch tiny-quickgelu; .*--arch tiny,TAG"):
        load_encoder(str(tmp_path / "mine.pt"), "small", "tiny")
    with pytest.raises(
        UsageError,
        match=r"does not go with --arch ViT-B-32 .*TAG is a folder of the whole model or one of: openai, .*laion2b",
    ):
        load_encoder(str(tmp_path / "mine.pt"), "small", "ViT-B-32")
    with pytest.raises(UsageError, match="did you mean 'tiny'"):
        load_encoder(str(tmp_path / "mine.pt"), "small", "tin")


def test_arch_of_the_paper_suite_names_both_choices(tmp_path):
    (tmp_path / "fare_eps_2.pt").write_bytes(b"never read")
    with pytest.raises(UsageError, match=r"--arch ViT-L-14-quickgelu; .* --arch ViT-L-14,laion") as refusal:
        load_encoder(str(tmp_path / "fare_eps_2.pt"), "paper", "ViT-L-14")
    assert "FARE, TeCoA" in str(refusal.value)


@pytest.mark.parametrize(
    ("arch", "architecture", "activation"),
    [
        ("ViT-L-14,openai", "ViT-L-14-quickgelu", "quick_gelu"),
        ("ViT-L-14-quickgelu,openai", "ViT-L-14-quickgelu", "quick_gelu"),
        ("ViT-B-32,laion2b_s34b_b79k", "ViT-B-32", "gelu"),
        ("ViT-B-32,metaclip_400m", "ViT-B-32-quickgelu", "quick_gelu"),
    ],
)
def test_a_tag_decides_the_activation(tmp_path, arch, architecture, activation):
    rows = catalogue.rows("paper")
    row = load._base_of_path(tmp_path, rows, arch)
    assert (row.architecture, row.activation) == (architecture, activation)
    assert row.preprocessing == replace(checkpoints.OPENAI, resize_mode="shortest")
    if arch == "ViT-L-14,openai":
        assert row.hub == rows["clip"].hub


def test_an_unknown_tag_is_refused(tmp_path):
    with pytest.raises(UsageError, match="did you mean 'laion2b_s34b_b79k'"):
        load._base_of_path(tmp_path, catalogue.rows("paper"), "ViT-B-32,laion2b_s34b_b79")


def test_a_folder_must_agree_with_arch(tmp_path):
    _architecture(tmp_path, "wee")
    _architecture(tmp_path, "wee-quickgelu", quick_gelu=True)
    checkpoints.open_clip_folder(tmp_path / "mine")
    load_encoder(str(tmp_path / "mine"), arch="wee")
    with pytest.raises(UsageError, match=r"activation gelu, but .* quick_gelu"):
        load_encoder(str(tmp_path / "mine"), arch="wee-quickgelu")
    with pytest.raises(UsageError, match="embedding width 24"):
        load_encoder(str(tmp_path / "mine"), arch="ViT-L-14")


def test_a_tower_of_another_architecture_is_refused(tmp_path, world):
    config = checkpoints.open_clip_config()
    config["vision_cfg"]["width"] = 64
    torch.save(checkpoints.open_clip_model(config).visual.state_dict(), tmp_path / "wide.pt")
    with pytest.raises(UsageError, match=r"wide\.pt does not fit the image tower: .* another shape .*another arch"):
        load_encoder(str(tmp_path / "wide.pt"), "small")


# ---- transformers folders --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@torch.no_grad()
def test_a_clip_model_folder(tmp_path, activation):
    model = checkpoints.clip_model_folder(tmp_path / "leaf", activation)
    encoder = load_encoder(str(tmp_path / "leaf"))
    ids = encoder.text.tokenizer(TEXTS)
    expected = model(input_ids=ids, pixel_values=_standardised(PIXELS))
    assert _agree(nn.functional.normalize(encoder(PIXELS), dim=-1), expected.image_embeds)
    assert _agree(encoder.text.embed(TEXTS), expected.text_embeds)
    assert encoder.text.scale.item() == pytest.approx(model.logit_scale.exp().item(), rel=1e-5)
    hidden = model.vision_model(_standardised(PIXELS), output_hidden_states=True).hidden_states[-2]
    assert _agree(encoder.patch_tokens(PIXELS), hidden[:, 1:])


def test_a_clip_model_on_the_hub_without_processor_and_tokenizer(tmp_path, cache):
    """LEAF's repositories hold the model alone: pixels and texts are prepared as for the model it came from."""
    words = {"vocab_size": 49408, "eos_token_id": 49407, "max_position_embeddings": 16}
    checkpoints.clip_model_folder(tmp_path / "leaf", processor=False, tokenizer=False, text=words)
    with pytest.raises(UsageError, match=r"no preprocessor_config\.json"):
        load_encoder(str(tmp_path / "leaf"))
    checkpoints.into_hub_cache(tmp_path / "leaf", cache, "LEAF-CLIP/leaf")
    row = EncoderRow("leaf", hub="LEAF-CLIP/leaf", format="transformers", preprocessing=checkpoints.OPENAI)
    encoder = load_row(row, {})
    assert encoder.preprocessing.mean == checkpoints.OPENAI.mean
    assert torch.equal(encoder.text.tokenizer(TEXTS), open_clip.SimpleTokenizer(context_length=16)(TEXTS))
    with pytest.raises(UsageError, match=r"activation quick_gelu, but .* gelu"):
        load_row(replace(row, activation="gelu"), {})


def test_a_clip_model_folder_whose_vocabulary_is_unknown_is_refused(tmp_path):
    checkpoints.clip_model_folder(tmp_path / "leaf", tokenizer=False)
    with pytest.raises(UsageError, match=r"no tokenizer\.json"):
        load_encoder(str(tmp_path / "leaf"))


@pytest.mark.parametrize("projected", [False, True])
@torch.no_grad()
def test_a_clip_vision_model_folder_takes_the_suites_text_tower(tmp_path, world, projected):
    model = checkpoints.vision_model_folder(tmp_path / "tower", "quick_gelu", projected)
    encoder = load_encoder(str(tmp_path / "tower"), "small")
    found = model(_standardised(PIXELS))
    expected = found.image_embeds if projected else found.pooler_output @ world.visual.proj
    assert _agree(encoder(PIXELS), expected)
    tokens = open_clip.SimpleTokenizer(context_length=16)(TEXTS)
    assert _agree(encoder.text.embed(TEXTS), world.encode_text(tokens, normalize=True))


def test_vision_towers_that_do_not_fit_are_refused(tmp_path, world):
    checkpoints.vision_model_folder(tmp_path / "gelu", "gelu")
    with pytest.raises(UsageError, match=r"says activation gelu, .* has quick_gelu"):
        load_encoder(str(tmp_path / "gelu"), "small")
    checkpoints.vision_model_folder(tmp_path / "narrow", "quick_gelu", projected=True, projection_dim=20)
    with pytest.raises(UsageError, match="embeddings of width 20 do not fit the text tower's 24"):
        load_encoder(str(tmp_path / "narrow"), "small")
    checkpoints.vision_model_folder(tmp_path / "wide", "quick_gelu", hidden_size=48)
    with pytest.raises(UsageError, match="width 48 needs a projection"):
        load_encoder(str(tmp_path / "wide"), "small")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1"), "git-lfs"),
        (lambda f: (f / "model.safetensors").unlink(), "holds no weights"),
        (lambda f: _edit(f / "config.json", model_type="siglip"), "describes a 'siglip' model"),
        (
            lambda f: _edit(f / "preprocessor_config.json", crop_size=336),
            "crop_size is 336 x 336",
        ),
        (lambda f: _edit(f / "preprocessor_config.json", resample=9), "resample 9 is not supported"),
        (lambda f: _drop(f / "model.safetensors", "visual_projection.weight"), "missing .*visual_projection"),
        (lambda f: _spoil(f / "model.safetensors", "visual_projection.weight"), "NaN .*visual_projection"),
        (lambda f: (f / "config.json").write_text("<html>"), "is not JSON"),
    ],
)
def test_a_damaged_transformers_folder_is_refused(tmp_path, damage, message):
    folder = tmp_path / "leaf"
    checkpoints.clip_model_folder(folder)
    damage(folder)
    with pytest.raises(UsageError, match=message) as refusal:
        load_encoder(str(folder))
    assert str(folder) in str(refusal.value)


def _edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _drop(path, name):
    save_file({k: v for k, v in load_file(path).items() if k != name}, path, {"format": "pt"})


def _spoil(path, name):
    save_file(load_file(path) | {name: torch.full((24, 32), torch.nan)}, path, {"format": "pt"})


# ---- Full size -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_full_size_rows_of_the_paper_suite(tmp_path, cache):
    """Rows as shipped, on random weights in a cache laid out as the hub's; the text tower from OpenAI's row."""
    for name in ("ViT-B-32", "ViT-L-14-quickgelu"):
        model = open_clip.create_model(name)
        set_model_preprocess_cfg(model, {"mean": checkpoints.OPENAI.mean, "std": checkpoints.OPENAI.std})
        folder = tmp_path / name
        folder.mkdir()
        save_file(model.state_dict(), folder / "open_clip_model.safetensors")
        save_config_for_hf(model, folder / "open_clip_config.json", model_config=open_clip.get_model_config(name))
    rows = catalogue.rows("paper")
    checkpoints.into_hub_cache(tmp_path / "ViT-B-32", cache, rows["fare4-vit-b-32-laion"].hub)
    assert load_encoder("fare4-vit-b-32-laion", "paper").n_patches == 49
    large = rows["fare4"]
    checkpoints.into_hub_cache(tmp_path / "ViT-L-14-quickgelu", cache, large.hub, large.revision)
    assert load_encoder("fare", "paper").n_patches == 256
    checkpoints.into_hub_cache(tmp_path / "ViT-L-14-quickgelu", cache, rows["clip"].hub)
    assert load_encoder("clip", "paper").width == 1024
    tower = {k.removeprefix("visual."): v for k, v in model.state_dict().items() if k.startswith("visual.")}
    torch.save(tower, tmp_path / "fare_eps_2.pt")
    assert load_encoder(str(tmp_path / "fare_eps_2.pt"), "paper", "ViT-L-14-quickgelu").width == 1024
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("parents", ["", "visual.", "vision_encoder.", "model.vision_encoder.", "module.model."])
@torch.no_grad()
def test_a_row_whose_tower_was_saved_as_a_part_of_something(tmp_path, world, parents, monkeypatch):
    """Sim-CLIP's rows: a file by its address, loaded into a ``vision_encoder`` by its authors."""
    model = checkpoints.open_clip_model(checkpoints.open_clip_config(quick_gelu=True), seed=3)
    torch.save({parents + k: v for k, v in model.visual.state_dict().items()}, tmp_path / "simclip4.pt")
    monkeypatch.setenv("BENCH_WEIGHTS", str(tmp_path))
    rows = {"clip": catalogue.rows("small")["clip"]}
    row = replace(PAPER["simclip4"], architecture=None, image_size=None)
    encoder = load_row(row, rows)
    assert _agree(encoder(PIXELS), model.encode_image(_standardised(PIXELS)))
    (tmp_path / "simclip4.pt").unlink()
    with pytest.raises(UsageError, match=r"not on this machine; download it: curl .*SimCLIP/resolve/main/simclip4\.pt"):
        load_row(row, rows)


def test_a_tower_beside_other_parts_is_refused(tmp_path, world):
    state = {f"model.vision_encoder.{k}": v for k, v in world.visual.state_dict().items()}
    torch.save(state | {"model.head.weight": torch.ones(2)}, tmp_path / "mixed.pt")
    with pytest.raises(UsageError, match="does not fit the image tower"):
        load_encoder(str(tmp_path / "mixed.pt"), "small")


@torch.no_grad()
def test_a_clip_model_in_the_proportions_of_leafs_vit_g(tmp_path, cache):
    """Its MLP is 4.3637 widths wide: 6144 of 1408."""
    words = {"vocab_size": 49408, "eos_token_id": 49407, "max_position_embeddings": 16, "intermediate_size": 69}
    model = checkpoints.clip_model_folder(
        tmp_path / "leaf", "gelu", processor=False, tokenizer=False, text=words, vision={"intermediate_size": 139}
    )
    row = PAPER["leaf-g14"]
    checkpoints.into_hub_cache(tmp_path / "leaf", cache, row.hub)
    encoder = load_row(replace(row, image_size=28), {})
    expected = model(input_ids=encoder.text.tokenizer(TEXTS), pixel_values=_standardised(PIXELS))
    assert _agree(nn.functional.normalize(encoder(PIXELS), dim=-1), expected.image_embeds)
    assert _agree(encoder.text.embed(TEXTS), expected.text_embeds)
