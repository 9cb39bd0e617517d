"""OpenFlamingo behind the victims' door: what is claimed, found and refused; prompts; the miniature."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from bench.errors import UsageError
from bench.mini import data
from bench.models.encoders.catalogue import resolve_path
from bench.models.encoders.load import load_encoder
from bench.models.victims.family import Source
from bench.models.victims.load import family_of, load_victim
from bench.models.victims.openflamingo.family import find
from tasks.base import Prompt
from tasks.captioning import Captioning
from tasks.protocol import STRICT
from tasks.scienceqa import ScienceQA
from tasks.vqa import VQA

MINI = resolve_path("package:mini/weights/openflamingo")


@pytest.fixture(scope="module")
def clip():
    return load_encoder("clip")


@pytest.fixture(scope="module")
def mini(clip):
    return load_victim("mini-openflamingo", clip)


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(MINI, tmp_path / "flamingo"))


def test_folders_files_and_releases_are_claimed_by_what_they_are(tmp_path):
    assert family_of(MINI)[0] == "openflamingo"
    (tmp_path / "released").mkdir()
    (tmp_path / "released" / "checkpoint.pt").touch()
    assert family_of(str(tmp_path / "released"))[0] == "openflamingo"
    assert family_of(str(tmp_path / "released" / "checkpoint.pt"))[0] == "openflamingo"
    assert family_of("openflamingo/OpenFlamingo-4B-vitl-rpj3b")[0] == "openflamingo"
    assert family_of("bench/mini/weights/llava")[0] == "llava"


def test_a_release_knows_its_language_model_and_gates_and_a_setting_overrides_it(tmp_path):
    place = tmp_path / "OpenFlamingo-4B-vitl-rpj3b"
    place.mkdir()
    (place / "checkpoint.pt").touch()
    found = find(Source(str(place)), {})
    assert (found.language, found.every) == ("togethercomputer/RedPajama-INCITE-Base-3B-v1", 2)
    assert found.checkpoint == place / "checkpoint.pt"
    assert find(Source(str(place / "checkpoint.pt")), {"language": "mine"}).language == "mine"
    with pytest.raises(UsageError, match="does not say which language model"):
        find(Source(str(place.rename(tmp_path / "other"))), {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda f: (f / "demonstrations.json").write_text(
                '{"vqa": [{"question": "q", "answer": "", "image": "../x"}]}'
            ),
            r"image of demonstration 0 '\.\./x' leaves",
        ),
        (lambda f: (f / "demonstrations.json").write_text("[]"), "holds no demonstrations"),
        (lambda f: (f / "demonstrations.json").write_text('{"vqa": [{"question": "q"}]}'), "holds no demonstrations"),
        (lambda f: (f / "demonstrations.json").write_text('{"vqa": [{"question": 1, "answer": ""}]}'), "must be text"),
        (lambda f: (f / "checkpoint.safetensors").unlink(), r"lacks checkpoint\.safetensors"),
        (lambda f: (f / "config.json").write_text('{"model_type": "openflamingo", "checkpoint": "../x"}'), "beside it"),
        (lambda f: shutil.rmtree(f / "language"), "language"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(folder, clip, change, message):
    change(folder)
    with pytest.raises(UsageError, match=message):
        load_victim(str(folder), clip)


def test_without_an_encoder_or_with_a_seed_that_is_none_it_is_refused(clip):
    with pytest.raises(UsageError, match="no image tower of its own; give an encoder"):
        load_victim(MINI, None)
    with pytest.raises(UsageError, match="demonstrations_seed must be a whole number from 0, not 'x'"):
        load_victim(MINI, clip, {"demonstrations_seed": "x"})


def test_prompts_are_openflamingos_after_two_examples_of_the_same_task_drawn_by_id(mini, clip):
    shown = json.loads(Path(MINI, "demonstrations.json").read_text())
    asked = mini.prompt(Prompt.of("pope", "7", "is there a ring ?", "\nAnswer yes or no."))
    *before, query = asked.text.split("<|endofchunk|>")
    assert query == "<image>Question:is there a ring ? Short answer:"
    examples = {f"Question:{row['question']} Short answer:{row['answer']}" for row in shown["pope"]}
    assert len(before) == 2
    assert set(before) <= examples
    assert not asked.images
    caption = mini.prompt(Prompt.of("captioning", "7", "describe the image")).text
    assert caption.endswith("<|endofchunk|><image>Output:")
    assert "describe" not in caption
    texts = {mini.prompt(Prompt.of("pope", str(n), "is there a ring ?")).text for n in range(20)}
    assert len(texts) > 10
    assert mini.prompt(Prompt.of("pope", "7", "is there a ring ?")).text == asked.text
    other = load_victim(MINI, clip, {"demonstrations_seed": "1"})
    assert other.settings == {"demonstrations_seed": "1"}
    assert other.prompt(Prompt.of("pope", "7", "is there a ring ?")).text != asked.text


def test_a_task_without_examples_of_its_own_gets_those_of_questions_but_a_caption_does_not(folder, clip):
    questions = {"vqa": json.loads((folder / "demonstrations.json").read_text())["vqa"]}
    (folder / "demonstrations.json").write_text(json.dumps(questions))
    victim = load_victim(str(folder), clip)
    own = {f"Question:{row['question']} Short answer:{row['answer']}" for row in questions["vqa"]}
    for asked in (Prompt.of("someone's", "1", "is there a ring ?"), "is there a ring ?"):
        assert set(victim.prompt(asked).text.split("<|endofchunk|>")[:2]) <= own
    with pytest.raises(UsageError, match="no demonstrations for the task 'captioning'"):
        victim.prompt(Prompt.of("captioning", "1", "describe the image"))


def test_what_can_be_shown_is_part_of_the_digests(mini, folder, clip):
    assert mini.digests() == load_victim(str(folder), clip).digests()
    shown = json.loads((folder / "demonstrations.json").read_text())
    shown["pope"][0]["answer"] += " indeed"
    (folder / "demonstrations.json").write_text(json.dumps(shown))
    changed, own = load_victim(str(folder), clip).digests(), mini.digests()
    assert {part for part in own if own[part] != changed[part]} == {"demonstrations"}


@pytest.mark.parametrize(
    ("kind", "name", "least"),
    [(VQA, "mini-vqa", 50), (Captioning, "mini-caption", 200), (ScienceQA, "mini-scienceqa", 33)],
)  # fmt: skip
def test_the_miniature_answers_above_chance_and_looks_at_the_image(mini, kind, name, least):
    task = kind(data.build(name, 60, "validation"), STRICT)
    samples = task.dataset.samples
    images = torch.stack([mini.preprocess(s.image) for s in samples])
    victim = task.bind(mini)

    def mean(pixels):
        said = victim.predict(pixels, samples)
        return sum(task.score(a.text, s) for a, s in zip(said, samples, strict=True)) / len(samples)

    assert mean(images) > least
    assert mean(images.roll(7, 0)) < mean(images) - 10
