"""A LLaVA checkpoint as a run loads it, and refusals that name the file."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from bench.config import Request, load_suite, resolve
from bench.errors import UsageError
from bench.models.encoders.encoder import Encoder
from bench.models.victims.llava.model import load_llava
from bench.models.victims.prompts import conversation
from bench.running import load as setup
from tests.bench.models.llava_checkpoint import HUB_TEMPLATE, small_encoder, write_llava


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_llava(tmp_path_factory.mktemp("hub") / "llava-1.5-small-hf")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return small_encoder()


# ---- As a run loads it -----------------------------------------------------------------------------------


def _prepared(**options):
    return setup.prepare(
        resolve(Request.of(encoder="clip", task="vqa", limit=2, device="cpu", attack="none", **options))[0]
    )


def test_a_run_with_the_native_tower_sees_through_it():
    own, swapped = _prepared(tower="native"), _prepared()
    assert own.header.tower == "native"
    assert own.header.weights["language"] != swapped.header.weights["language"]  # the tower is part of it
    assert torch.equal(own.images.pixels, swapped.images.pixels)
    assert own.victim.predict(own.images.pixels, own.samples) == swapped.victim.predict(
        swapped.images.pixels, swapped.samples
    )


def test_how_a_suite_asks_is_recorded_where_it_differs_from_the_checkpoint(monkeypatch):
    assert "victim" not in _prepared().header.protocol
    of_families = {"llava": {"conversation": "vicuna_v1", "image_aspect_ratio": "pad"}, "openflamingo": {"shots": "4"}}
    suite = replace(load_suite("mini"), victim=of_families)
    monkeypatch.setattr("bench.running.victims.load_suite", lambda name: suite)
    assert _prepared().header.victim_settings == of_families["llava"]
    native = _prepared(vlm="mini-llava?conversation=vicuna_v1", tower="native")
    assert (native.header.victim_settings, native.header.tower) == (of_families["llava"], "native")


# ---- Refusals --------------------------------------------------------------------------------------------


def _copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def _edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _drop_a_tensor(folder):
    shard = folder / "model-00002-of-00003.safetensors"
    state = load_file(shard)
    dropped = next(name for name in state if "language_model" in name)
    state.pop(dropped)
    save_file(state, shard, metadata={"format": "pt"})
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"].pop(dropped)
    index.write_text(json.dumps(content))


def _forget_the_image_token(folder):
    for name in ("tokenizer.json", "tokenizer_config.json", "added_tokens.json"):
        path = folder / name
        path.write_text(path.read_text().replace("<image>", "<photo>"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "model-00002-of-00003.safetensors").unlink(), r"lacks 1 of 3 shards.*model-00002-of-00003"),
        (lambda f: (f / "model-00001-of-00003.safetensors").write_text("<!DOCTYPE html>"), "HTML page"),
        (lambda f: (f / "model-00001-of-00003.safetensors").write_bytes(b"\0" * 99), "no LLaVA checkpoint"),
        (_drop_a_tensor, r"lacks 1 of the model's tensors: \['.*language_model"),
        (_forget_the_image_token, r"config says that <image> is token \d+, the tokenizer does not know it"),
        (lambda f: _edit(f / "config.json", image_token_index=7), "is token 7, the tokenizer has"),
        (lambda f: _edit(f / "config.json", model_type="llama"), "of type 'llama', not LLaVA-1.5"),
        (lambda f: _edit(f / "config.json", model_type="llava_llama"), "convert it with .*convert_llava_weights_to_hf"),
        (lambda f: _edit(f / "config.json", vision_feature_select_strategy="full"), "select_strategy 'full' is not"),
        (lambda f: _edit(f / "config.json", vision_feature_layer=[-2, -5]), r"vision_feature_layer \[-2, -5\] is not"),
        (lambda f: (f / "model.safetensors.index.json").write_text("{}"), r"index\.json has no weight_map"),
        (lambda f: (f / "model.safetensors.index.json").write_text('{"weight'), r"index\.json cannot be read"),
        (lambda f: (f / "model-00001-of-00003.safetensors").write_bytes(b"\xff" * 99), "no LLaVA checkpoint"),
        (lambda f: (f / "tokenizer.json").rename(f / "tokenizer.model"), "pip install sentencepiece"),
        (lambda f: (f / "tokenizer.json").unlink(), "lacks tokenizer.json or tokenizer.model; download"),
        (lambda f: (f / "config.json").unlink(), "lacks config.json; download"),
        (
            lambda f: (f / "config.json").write_text("<html>"),
            r"no LLaVA checkpoint that can be read \(.*download it again",
        ),
    ],
)
def test_a_damaged_checkpoint_is_refused_by_name(folder, encoder, tmp_path, damage, message):
    copy = _copy(folder, tmp_path)
    damage(copy)
    with pytest.raises(UsageError, match=message) as refusal:
        load_llava(str(copy), encoder)
    assert str(copy) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_merged_file_counts_whatever_a_stale_index_says(folder, encoder, tmp_path):
    copy, expected = _copy(folder, tmp_path), load_llava(str(folder), encoder)
    merged = {k: v for shard in sorted(copy.glob("*-of-*")) for k, v in load_file(shard).items()}
    for shard in copy.glob("*-of-*"):
        shard.unlink()
    save_file(merged, copy / "model.safetensors", metadata={"format": "pt"})
    assert load_llava(str(copy), encoder).digests() == expected.digests()


def test_the_native_tower_follows_its_image_processor_or_refuses_the_key(folder, encoder, tmp_path):
    copy = _copy(folder, tmp_path)
    picture = Image.effect_noise((91, 120), 60).convert("RGB")
    for changes in ({"resample": 2}, {"size": {"height": 70, "width": 60}}, {"size": {"shortest_edge": 61}}):
        _edit(copy / "preprocessor_config.json", **changes)
        seen = load_llava(str(copy), None, tower="native").preprocess(picture)
        theirs = CLIPImageProcessorPil.from_pretrained(copy)(picture, return_tensors="pt", do_normalize=False)
        assert (seen - theirs["pixel_values"][0]).abs().max() < 1e-6
    _edit(copy / "preprocessor_config.json", do_center_crop=False)
    with pytest.raises(UsageError, match="its image processor: do_center_crop is false"):
        load_llava(str(copy), None, tower="native")
    assert load_llava(str(copy), encoder).patches == 9  # an encoder brings its own pixels


def test_a_model_that_is_neither_a_folder_nor_cached_is_named_with_the_remedy(encoder):
    with pytest.raises(UsageError, match=r"no folder nobody/no-such-llava.*`hf download nobody/no-such-llava`.*--vlm"):
        load_llava("nobody/no-such-llava", encoder)


def test_a_template_without_an_image_is_refused(folder, encoder, tmp_path):
    copy = _copy(folder, tmp_path)
    (copy / "chat_template.json").unlink()
    (copy / "chat_template.jinja").write_text(HUB_TEMPLATE.replace("{{ '<image>\n' }}", ""))
    with pytest.raises(UsageError, match="one <image> and the question once"):
        load_llava(str(copy), encoder)
    assert load_llava(str(copy), encoder, conversation_name="vicuna_v1").patches == 9


@pytest.mark.parametrize("template", ["{{ ''.__class__.__mro__ }}", "{% if %}", "{{ messages.x.y }}", "{{ 1 / 0 }}"])
def test_a_template_that_fails_is_refused(folder, encoder, tmp_path, template):
    copy = _copy(folder, tmp_path)
    (copy / "chat_template.json").unlink()
    (copy / "chat_template.jinja").write_text(template)
    with pytest.raises(UsageError, match=r"no chat template for an image with a question.*conversation="):
        load_llava(str(copy), encoder)


def test_an_unknown_conversation_is_refused():
    with pytest.raises(UsageError, match=r"unknown conversation 'vicuna_v2'; there is vicuna_v1"):
        conversation("vicuna_v2", None, 0)


def test_an_encoder_of_another_width_is_refused(folder):
    with pytest.raises(UsageError, match="projector expects features of width 32, the encoder gives 24"):
        load_llava(str(folder), small_encoder(width=24))
