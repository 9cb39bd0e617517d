"""A folder for the hub: what is in it, its model-index, and an upload to a hub that is not there."""

import json
import shutil

import open_clip
import pytest
import torch
import yaml
from huggingface_hub import ModelCard

from bench.errors import UsageError
from bench.models.encoders.load import load_encoder
from bench.records import RecordsError
from bench.train import hub
from tests.bench.runs import in_memory, make_run
from tests.bench.train.commands import invoke

SCORES = {0: [100.0, 100.0, 0.0, 100.0], 4: [100.0, 0.0, 0.0, 0.0]}


@pytest.fixture
def results(finished, tmp_path):
    """A whole run on the trained weights, a partial one, a doubtful one, and one on other weights."""
    weights = {"encoder": json.loads((finished / "training.json").read_text())["digest"]}
    failed = [{"name": "gradient", "ok": False, "detail": ""}]
    folder = tmp_path / "results"
    make_run(folder / "whole", SCORES, weights=weights, encoder=str(finished))
    make_run(folder / "partial", SCORES, weights=weights, limit=4, dataset="of-partial")
    make_run(folder / "doubted", SCORES, weights=weights, checks=failed, dataset="of-doubted")
    make_run(folder / "other", SCORES, dataset="of-other")
    return folder


@pytest.fixture
def pushed(finished, results, tmp_path):
    return hub.make_folder(finished, tmp_path / "hub", results, repo="me/fare8", licence="mit")


def test_the_folder_holds_the_encoder_in_forms_without_pickles(finished, pushed):
    names = {str(file.relative_to(pushed)) for file in pushed.rglob("*") if file.is_file()}
    assert {"open_clip_config.json", "open_clip_model.safetensors", "README.md", "curves.png"} < names
    assert "clip_vision_model/model.safetensors" in names
    assert not {name for name in names if name.endswith((".pt", ".jsonl")) or "tensorboard" in name}
    images = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(load_encoder(str(pushed))(images), load_encoder(str(finished))(images))
    open_clip.create_model_from_pretrained(f"local-dir:{pushed}")


def test_the_model_index_has_what_may_be_quoted_and_nothing_else(pushed):
    data = ModelCard.load(pushed / "README.md").data
    assert (data.license, data.library_name) == ("mit", "open_clip")
    clean, attacked = data.eval_results
    assert {result.dataset_type for result in data.eval_results} == {"mini-vqa"}
    assert (clean.metric_value, clean.metric_name) == (75.0, "accuracy, clean")
    assert (attacked.metric_value, attacked.metric_name) == (25.0, "accuracy, ensemble, linf, 4/255")
    told = attacked.metric_args
    assert (told["radius"], told["attack"], told["n"], told["protocol"]) == (4.0, "ensemble", 4, "strict")
    assert told["low"] < 25 < told["high"]
    assert (attacked.task_type, attacked.task_name) == ("visual-question-answering", "vqa in mini-llava")


def test_the_card_is_yaml_then_markdown_and_names_no_path_of_this_machine(finished, pushed):
    text = (pushed / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    index = yaml.safe_load(head)["model-index"]
    assert index[0]["name"] == finished.name
    assert len(index[0]["results"][0]["metrics"]) == 2
    for part in ("8 updates of 4 images", "hf-hub:me/fare8", "| vqa | mini-vqa | 4/255 | 25.0 |", "curves.png"):
        assert part in body, part
    assert str(finished.parent) not in text
    assert "imagefolder:" in body


def test_numbers_are_named_by_what_answers():
    shape = {"model": None, "answers": "class", "task": "zeroshot", "metric": "accuracy (%)"}
    caption = {"task": "captioning", "metric": "CIDEr"}
    found = hub.index_of([in_memory(SCORES, **shape), in_memory(SCORES, **caption)])
    assert [(one.task_type, one.metric_type) for one in found[::2]] == [
        ("zero-shot-image-classification", "accuracy"),
        ("image-to-text", "cider"),
    ]


def test_made_again_it_is_brought_up_to_date_and_strangers_are_kept(finished, pushed):
    (pushed / "README.md").write_text("old")
    hub.make_folder(finished, pushed)
    assert "model-index" not in (pushed / "README.md").read_text()
    (pushed / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"other files, such as mine\.txt"):
        hub.make_folder(finished, pushed)


class Hub:
    """Notes what is asked of it, and refuses where it is told to."""

    def __init__(self, error=None):
        self.asked, self.error = [], error

    def create_repo(self, repo_id, **options):
        self.asked.append((repo_id, options))

    def upload_folder(self, **options):
        if self.error is not None:
            raise self.error
        self.asked.append(options)


@pytest.mark.parametrize("name", ["README.md", "open_clip_config.json", "clip_vision_model"])
def test_the_folder_is_written_through_no_link(finished, pushed, tmp_path, name):
    (pushed / name).rename(tmp_path / "precious")
    (pushed / name).symlink_to(tmp_path / "precious")
    places = [tmp_path / "precious", *(tmp_path / "precious").rglob("*")]
    before = {path: path.read_bytes() for path in places if path.is_file()}
    with pytest.raises((RecordsError, UsageError), match="is a link"):
        hub.make_folder(finished, pushed, repo="you/other")
    assert before == {path: path.read_bytes() for path in before}


def test_facts_of_another_form_are_named_before_anything_is_written(finished, tmp_path):
    trained = shutil.copytree(finished, tmp_path / "trained")
    (trained / "training.json").write_text('{"digest": "0"}')
    with pytest.raises(UsageError, match=r"training\.json is not as bench train writes it"):
        hub.make_folder(trained, tmp_path / "hub")
    assert not (tmp_path / "hub").exists()


def test_an_upload_makes_a_private_repository_and_sends_the_folder(tmp_path):
    api = Hub()
    assert hub.upload(tmp_path, "me/fare8", api=api) == "https://huggingface.co/me/fare8"
    made, sent = api.asked
    assert made == ("me/fare8", {"private": True, "exist_ok": True})
    assert (sent["repo_id"], sent["folder_path"]) == ("me/fare8", tmp_path)


def test_a_hub_that_refuses_is_one_line_without_the_token(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789")
    with pytest.raises(UsageError, match="is ready, but was not uploaded to me/fare8") as refused:
        hub.upload(tmp_path, "me/fare8", api=Hub(OSError("403\nfor hf_0123456789")))
    assert str(refused.value).endswith("403 for [secret]")
    monkeypatch.setattr(hub, "get_token", lambda: "hf_0123456789")
    with pytest.raises(UsageError, match="was not uploaded to a/b/c"):  # huggingface_hub itself knows what a name is
        hub.upload(tmp_path, "a/b/c")


def test_without_a_token_nothing_is_uploaded(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "get_token", lambda: None)
    monkeypatch.setattr(hub, "HfApi", lambda **_: pytest.fail("the hub is asked"))
    words = ["push", "hub", str(finished), "-o", str(tmp_path / "hub"), "--results", str(tmp_path)]
    assert invoke(words).exit_code == 0
    assert "needs --repo" in invoke([*words, "--upload"]).output
    done = invoke([*words, "--upload", "--repo", "me/fare8"])
    assert done.exit_code == 2
    assert "HF_TOKEN" in done.output


def test_what_is_no_finished_training_is_refused(tmp_path):
    done = invoke(["push", "hub", str(tmp_path), "-o", str(tmp_path / "hub")])
    assert done.exit_code == 2
    assert "not the folder of a finished training run: it has no training.json" in done.output
