"""What a training job leaves behind: every form of the encoder, card, metrics, scores."""

import json
import os
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transformer import QuickGELU
from PIL import Image
from transformers import CLIPVisionModel

from bench import api
from bench.models.encoders.load import load_encoder
from bench.train import card
from bench.train.base import _model_config, load_base
from bench.train.export import export
from bench.train.job import TrainingJob
from tests.bench.train.commands import ARCH, events, invoke, train_command


def test_every_form_of_the_result_gives_equal_embeddings(finished):
    images = torch.rand(3, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    encoder = load_encoder(str(finished))
    original = load_encoder("clip")
    with torch.no_grad():
        expected = encoder(images)
        assert (expected - original(images)).norm() > 1e-3 * expected.norm()
        assert torch.allclose(load_encoder(str(finished / "visual.pt"))(images), expected, atol=1e-5)
        whole, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{finished}")
        pixels = (images - encoder.mean) / encoder.std
        assert torch.allclose(whole.eval().encode_image(pixels), expected, atol=1e-4)
        photo = Image.fromarray(np.arange(90 * 60 * 3, dtype=np.uint8).reshape(90, 60, 3))
        ours = (encoder.preprocess(photo) - encoder.mean[0]) / encoder.std[0]
        assert torch.allclose(preprocess(photo), ours, atol=1e-5)
        vision = CLIPVisionModel.from_pretrained(finished / "clip_vision_model").eval()
        pooled = vision(pixel_values=pixels).pooler_output
        assert torch.allclose(pooled @ encoder.visual.proj, expected, atol=1e-4)
    texts = encoder.text.embed(["a photo of a red circle"])
    assert torch.allclose(texts, original.text.embed(["a photo of a red circle"]), atol=1e-6)


def test_the_run_directory_is_an_encoder_and_its_scores_enter_the_card(finished, tmp_path):
    assert "None yet" in (finished / "README.md").read_text()
    words = ["run", "--encoder", str(finished), "--task", "zeroshot", "--limit", "2", "--attack", "none", "--jobs", "1"]
    done = invoke([*words, "--output", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert invoke(["train", "card", str(finished), "--results", str(tmp_path)]).exit_code == 0
    text = (finished / "README.md").read_text()
    assert "| zeroshot | mini-shape | clean |" in text
    assert "(partial: --limit 2)" in text


@pytest.mark.parametrize(
    ("asked", "steps", "expected"),
    [(None, 20_000, "mini"), (None, 8, None), ("none", 20_000, None), ("paper", 8, "paper")],
)
def test_scores_for_the_card_are_measured_where_they_are_asked_for_or_cheap(asked, steps, expected):
    job = TrainingJob(objective="fare", arch="a", data="folder:x", output=Path("out"), steps=steps, score=asked)
    assert job.suite_to_score() == expected


def test_training_ends_with_the_scores_of_a_suite(images, tmp_path, monkeypatch):
    """Two samples per set, so that it takes no time."""
    run = api.run
    monkeypatch.setattr(api, "run", lambda **named: run(**named, limit=2, attack="none", jobs=1, progress=False))
    words = ["--steps", "1", "--warmup", "0", "--score", "mini", "--results", str(tmp_path / "results")]
    done = invoke(train_command(images, tmp_path / "out", *words))
    assert done.exit_code == 0, done.output
    assert "| zeroshot | mini-shape | clean |" in (tmp_path / "out" / "README.md").read_text()


def test_the_card_tells_recipe_data_and_curves(finished):
    text = (finished / "README.md").read_text()
    for part in (
        "8 updates of 4 images",
        "4/255",
        "49 files, sha256",
        "2 images held out",
        "1 images could not be read",
        "| cosine to the original |",
        "curves.png",
    ):
        assert part in text, part
    assert np.asarray(Image.open(finished / "curves.png").convert("L")).std() > 5
    assert json.loads((finished / "skipped.jsonl").read_text().splitlines()[0])["id"] == "circle/broken.png"


def test_metrics_and_tensorboard_events_say_the_same(finished):
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    logged = [row for row in rows if "loss" in row]
    assert {"cosine_clean", "cosine_attacked", "rate", "images_per_second", "data_wait"} <= logged[0].keys()
    assert all(0 <= row["data_wait"] <= 1 for row in logged)
    assert [row["step"] for row in rows if "eval_cosine_attacked" in row] == [3, 7]
    (path,) = (finished / "tensorboard").iterdir()
    found = {(v.tag, event.step): v.simple_value for event in events(path) for v in event.summary.value}
    for row in logged:
        assert found["loss", row["step"]] == pytest.approx(row["loss"], rel=1e-5)
    assert ("eval/cosine_clean", 7) in found


def test_blend_lies_between_original_and_trained(finished, tmp_path):
    words = ["train", "blend", "--arch", str(ARCH), "--trained", str(finished), "--output"]
    for share in ("0", "0.25", "1"):
        done = invoke([*words, str(tmp_path / share), "--share", share])
        assert done.exit_code == 0, done.output
    start = load_base(str(ARCH), None).encoder.visual.state_dict()
    end = torch.load(finished / "visual.pt", weights_only=True)
    for share in (0, 0.25, 1):
        found = torch.load(tmp_path / f"{share}" / "visual.pt", weights_only=True)
        assert all(torch.allclose(found[k], (1 - share) * start[k] + share * end[k], atol=1e-6) for k in found)
    assert load_encoder(str(tmp_path / "0.25"))(torch.zeros(1, 3, 48, 48)).shape == (1, 96)
    assert "not empty" in invoke([*words, str(tmp_path / "1")]).output
    assert "must lie in [0, 1]" in invoke([*words, str(tmp_path / "x"), "--share", "1.5"]).output


def test_the_activation_of_the_weights_is_written_into_the_configuration():
    """OpenAI's weights come with QuickGELU, which open_clip's configuration of ViT-B-32 does not name."""
    assert "quick_gelu" not in _model_config("ViT-B-32", None, torch.nn.Sequential(torch.nn.GELU()))
    assert _model_config("ViT-B-32", None, torch.nn.Sequential(QuickGELU()))["quick_gelu"] is True


def test_an_export_that_cannot_be_written_says_how_to_go_on(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="goes on from the checkpoint"):
        export(load_base(str(ARCH), None), tmp_path / "file" / "out")


def _spoilt(value):
    """JSON data with every text in it made hostile, the names of flaws aside, which are looked up."""
    if isinstance(value, dict):
        return {key: inner if key == "flaws" else _spoilt(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_spoilt(inner) for inner in value]
    return f"{value}<b>x</b>[a](http://b)\n# spoilt" if isinstance(value, str) else value


def test_a_card_shows_names_as_they_are_and_a_damaged_one_is_named(finished, tmp_path):
    """No link, tag or image of its own; a name that is no text in UTF-8 is spelled out."""
    for name in (card.TRAINING, card.METRICS):
        (tmp_path / name).write_bytes((finished / name).read_bytes())
    facts = json.loads((tmp_path / card.TRAINING).read_text())
    (tmp_path / card.TRAINING).write_text(json.dumps(_spoilt(facts) | {"data": os.fsdecode(b"folder:caf\xe9")}))
    text = card.write_card(tmp_path).read_text(encoding="utf-8")
    assert "spoilt" in text
    assert [mark for mark in ("<b>", "[a](http", "\n# spoilt") if mark in text] == []
    assert "caf" in text
    for content, message in [("{", "is not whole JSON"), ("{}", "is not as bench train writes it")]:
        (tmp_path / card.TRAINING).write_text(content)
        done = invoke(["train", "card", str(tmp_path)])
        assert done.exit_code == 2
        assert message in done.output
