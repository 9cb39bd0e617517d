"""The path of pictures of several sizes through the runner: records of both paths, images, resuming, verification."""

import json

import pytest
import torch
from click.testing import CliRunner

from bench.cli import main
from bench.models.encoders.convert import to_clip_vision_model
from bench.models.encoders.load import load_encoder
from bench.models.victims.any_model.model import AnyModel
from bench.records import load_run
from bench.records.images import read_png
from bench.verify import verify
from tests.bench.models.victims.any_model import kinds
from tests.bench.models.victims.any_model.kinds import write
from tests.bench.models.victims.any_model.walk import SIZES, walk


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write("Idefics3, SmolVLM", tmp_path_factory.mktemp("smolvlm"))


def _run(folder, data, *more):
    found = walk(folder, data, ("vqa",), *more)
    return load_run(found[0]["run_dir"])


def test_both_paths_are_recorded_and_the_header_says_what_moves_a_number(folder, tmp_path):
    run = _run(folder, tmp_path / "data")
    assert [r.png_score is not None for r in run.records] == [True] * len(run.records)
    assert {r.step for r in run.records} == {"clean", "apgd"}
    assert {check["name"]: check["ok"] for check in run.header.checks}["attack_survives_8_bits"]
    victim = run.header.protocol["victim_facts"]
    assert victim["model_type"] == "idefics3"
    assert victim["image_processor"]["size"] == {"longest_edge": 56}
    assert (run.header.encoder, run.header.tower, run.header.victim_settings) == ("native", "native", {})
    assert set(run.header.weights) == {"model"}


def test_batches_of_any_size_record_the_same_whatever_the_sizes(folder, tmp_path):
    found = [_run(folder, tmp_path / name, "--batch-size", name) for name in ("1", "3")]
    scores = [{r.key: (r.prediction, r.score, r.png_score) for r in run.records} for run in found]
    assert scores[0] == scores[1]


def test_saved_images_have_the_sizes_of_their_pictures_and_bear_out_the_records(folder, tmp_path):
    run = _run(folder, tmp_path / "data", "--save-adversarial")
    for number, size in enumerate(SIZES):
        assert read_png(run.directory / "adversarial" / "0" / f"{number}.png").shape == (3, *size)
    said = verify(run, device="cpu", progress=False)
    assert not said.mismatches
    assert said.pngs == len(list((run.directory / "adversarial" / "16").glob("*.png"))) > 0
    lines = (run.directory / "records.jsonl").read_text().splitlines()
    changed = [json.loads(line) for line in lines]
    next(one for one in changed if one["step"] != "clean" and one["score"] == 0)["png_score"] = 30.0
    (run.directory / "records.jsonl").write_text("".join(json.dumps(one) + "\n" for one in changed))
    (mismatch,) = verify(load_run(run.directory), device="cpu", progress=False).mismatches
    assert mismatch.field == "png_score"


def test_images_cannot_be_asked_for_after_an_attack_that_kept_none(folder, tmp_path):
    _run(folder, tmp_path / "data")
    with pytest.raises(RuntimeError, match="without --save-adversarial: their images are gone"):
        _run(folder, tmp_path / "data", "--save-adversarial")


def test_an_image_size_lies_apart_and_is_recorded(folder, tmp_path):
    runs = [_run(folder, tmp_path / "data", *more) for more in ((), ("--image-size", "30"))]
    assert runs[0].directory != runs[1].directory
    assert runs[1].header.victim_settings == {"image_size": "30"}


def test_other_families_have_no_image_size():
    options = ["--vlm", "mini-llava", "--task", "vqa", "--image-size", "30", "--encoder", "clip", "--attack", "none"]
    result = CliRunner().invoke(main, ["run", *options, "--device", "cpu"])
    assert result.exit_code == 2
    assert "unknown setting of the victim family 'llava' 'image_size'" in result.stderr


def test_a_model_without_a_tower_of_its_own_asks_for_an_encoder():
    result = CliRunner().invoke(main, ["run", "--vlm", "mini-openflamingo", "--task", "vqa", "--device", "cpu"])
    assert result.exit_code == 2
    assert "has no image tower of its own; give an encoder" in result.stderr


def test_attacks_on_features_run(folder, tmp_path):
    run = _run(folder, tmp_path / "data", "--attack", "features", "--limit", "1")
    assert {r.error for r in run.records} == {None}


def test_an_attack_in_half_precision_is_judged_in_float32_on_both_paths(folder, tmp_path, monkeypatch):
    """The copy in half precision is asked for gradients only: it could not answer, and the records bear float32 out."""
    used, real = [], AnyModel.at

    def at(self, precision):
        twin = real(self, precision)
        if twin is not self:
            used.append(twin.compute)
            monkeypatch.setattr(twin, "generate", None)
            monkeypatch.setattr(twin, "deployed", None)
        return twin

    monkeypatch.setattr(AnyModel, "at", at)
    run = _run(folder, tmp_path / "data", "--precision", "bf16", "--save-adversarial")
    assert set(used) == {torch.bfloat16}
    assert run.header.precision == "bf16"
    assert any(r.step != "clean" and r.score < 100 for r in run.records)
    assert not verify(run, device="cpu", progress=False).mismatches


def test_an_encoder_can_be_put_into_a_model_from_the_command_line(tmp_path, monkeypatch):
    """A LLaVA-1.5 around a tower of the shape of the miniature CLIP, whose weights are the encoder's in the end."""
    encoder = load_encoder("clip")
    tower = to_clip_vision_model(encoder.visual).config.to_dict()
    monkeypatch.setattr(kinds, "CLIP", {**tower, "model_type": "clip_vision_model"})
    folder = write("LLaVA-1.5", tmp_path / "model")
    with pytest.raises(RuntimeError, match="normalises with mean"):
        walk(folder, tmp_path / "data", ("vqa",), "--encoder", "clip")
    path = folder / "processor_config.json"
    config = json.loads(path.read_text())
    config["image_processor"] |= {"image_mean": [0.5] * 3, "image_std": [0.15] * 3}
    path.write_text(json.dumps(config))
    runs = [_run(folder, tmp_path / "data", "--encoder", name) for name in ("clip", "fare4")]
    assert [run.header.encoder for run in runs] == ["clip", "fare4"]
    assert {run.header.protocol["victim_facts"]["tower"] for run in runs} == {"encoder"}
    assert runs[0].header.weights["model"] != runs[1].header.weights["model"]
