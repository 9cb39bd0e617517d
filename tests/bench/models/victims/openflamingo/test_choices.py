"""OpenFlamingo's settings: shots with images, and decoding as today and as published."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from bench.data.images import open_image
from bench.errors import UsageError
from bench.mini import data
from bench.models.encoders.catalogue import resolve_path
from bench.models.encoders.load import load_encoder
from bench.models.victims.load import load_victim
from bench.models.victims.loaded import ShowsExamples
from bench.models.victims.openflamingo.choices import Choices
from bench.models.victims.openflamingo.generation import Decoding, NewTokens, WithPrompt
from bench.models.victims.openflamingo.model import OpenFlamingo
from bench.models.victims.openflamingo.prompts import CAPTION, VQA, shown_answer
from tasks.base import Prompt, Sample

MINI = resolve_path("package:mini/weights/openflamingo")


@pytest.fixture(scope="module")
def clip():
    return load_encoder("clip")


@pytest.fixture(scope="module")
def four(clip):
    return load_victim("mini-openflamingo", clip, {"shots": "4"})


def test_settings_become_a_way_of_decoding():
    assert Choices.of({}).decoding(CAPTION).beams == 1
    paper = Choices.of({"beams": "3", "length_counts": "prompt"})
    assert paper.decoding(CAPTION) == Decoding(3, -2.0, WithPrompt())
    assert paper.decoding(VQA) == Decoding(3, 0.0, WithPrompt())
    assert Choices.of({"beams": "3"}).decoding(CAPTION) == Decoding(3, -2.0, NewTokens())
    assert Choices.of({"beams": "3", "length_penalty": "-0.5"}).decoding(VQA).length_penalty == -0.5
    chosen = Choices.of({"shots": "8", "demonstrations_seed": "7"})
    assert (chosen.shots, chosen.seed) == (8, 7)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shots": "-1"}, "shots must be a whole number from 0, not '-1'"),
        ({"shots": "²"}, "shots must be a whole number"),
        ({"shots": "9" * 40}, "shots must be a whole number"),
        ({"beams": "0"}, "beams must be a whole number from 1, not '0'"),
        ({"beams": "3", "length_penalty": "nan"}, "length_penalty must be a number, not 'nan'"),
        ({"beams": "3", "length_penalty": "short"}, "length_penalty must be a number, not 'short'"),
        ({"length_penalty": "1"}, "length_penalty does nothing with greedy decoding; give beams=3"),
    ],
)
def test_a_setting_that_is_no_number_or_does_nothing_is_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        Choices.of(settings)


def test_shots_show_the_examples_images_each_behind_its_tag(four):
    asked = four.prompt(Prompt.of("vqa", "7", "what colour is the ring ?"))
    *shown, query = asked.text.split("<|endofchunk|>")
    assert query == "<image>Question:what colour is the ring ? Short answer:"
    rows = json.loads(Path(MINI, "demonstrations.json").read_text())["vqa"]
    assert len(shown) == len(asked.images) == 4
    for text, image in zip(shown, asked.images, strict=True):
        (row,) = [r for r in rows if text == f"<image>Question:{r['question']} Short answer:{r['answer']}"][:1]
        assert image.shape == (3, 48, 48)
        named = {r["image"] for r in rows if (r["question"], r["answer"]) == (row["question"], row["answer"])}
        pixels = [four.preprocess(data_image(name)) for name in named]
        assert any(torch.equal(image, one) for one in pixels)


def data_image(name):
    return open_image(Path(MINI, name))


def test_the_images_that_are_shown_move_the_loss_and_answers_stay_the_same_in_any_batch(four):
    samples = data.build("mini-vqa", 4, "validation").samples
    prompts = [Prompt.of("vqa", s.id, s.prompt) for s in samples]
    images = torch.stack([four.preprocess(s.image) for s in samples])
    wanted = [s.references[0] for s in samples]
    together = four.answers(prompts, wanted)(images, torch.arange(4)).nll
    apart = [
        four.answers([p], [w])(images[[k]], torch.tensor([0])).nll
        for k, (p, w) in enumerate(zip(prompts, wanted, strict=True))
    ]
    torch.testing.assert_close(together, torch.cat(apart), rtol=1e-4, atol=1e-5)
    said = four.generate(images, prompts, max_new_tokens=5)
    assert said == [four.generate(images[[k]], [p], max_new_tokens=5)[0] for k, p in enumerate(prompts)]
    black = four.prompt(prompts[0])
    swapped = type(black)(black.text, tuple(torch.zeros_like(image) for image in black.images))
    assert four.model.answers([swapped], wanted[:1])(images[:1], torch.tensor([0])).nll != together[0]


def test_examples_without_images_are_refused_where_they_are_to_be_shown(clip, tmp_path):
    folder = Path(shutil.copytree(MINI, tmp_path / "flamingo"))
    rows = {"vqa": [{"question": f"q{n} ?", "answer": "red"} for n in range(5)]}
    (folder / "demonstrations.json").write_text(json.dumps(rows))
    victim = load_victim(str(folder), clip, {"shots": "4"})
    with pytest.raises(UsageError, match=r"demonstration \d has no image, and --shots shows images"):
        victim.prompt("what colour is the ring ?")
    with pytest.raises(UsageError, match="8 demonstrations are asked for, there are 5; use fewer shots"):
        load_victim(str(folder), clip, {"shots": "8"}).prompt("what colour is the ring ?")


def test_a_release_without_examples_wants_them_and_draws_from_what_it_is_given(clip, tmp_path):
    folder = Path(shutil.copytree(MINI, tmp_path / "flamingo"))
    (folder / "demonstrations.json").unlink()
    victim = load_victim(str(folder), clip)
    assert isinstance(victim, ShowsExamples)
    assert (victim.wants_examples("vqa"), victim.wants_examples("captioning")) == ("texts", "texts")
    assert load_victim(str(folder), clip, {"shots": "4"}).wants_examples("vqa") == "images"
    victim.show("vqa", [Sample(str(n), Path(), f"is it {n} ?", (f"yes:{n}", "no"), "") for n in range(9)])
    assert (victim.wants_examples("vqa"), victim.wants_examples("pope")) == (None, None)
    assert victim.wants_examples("captioning") == "texts"
    *shown, _ = victim.prompt(Prompt.of("vqa", "1", "why ?")).text.split("<|endofchunk|>")
    assert len(shown) == 2
    for text in shown:
        number = text.removeprefix("Question:is it ").partition(" ")[0]
        assert text == f"Question:is it {number} ? Short answer:yes{number}"  # the first answer, without its colon
        assert number != "1"  # the sample that is asked about is never shown


def test_an_example_of_multiple_choice_answers_with_its_letter():
    sample = Sample("1", Path(), "which ?", ("blue",), "", 1, choices=("red", "blue"))
    assert shown_answer(sample) == "B"
    assert shown_answer(Sample("1", Path(), "which ?", ("blue", "red"), "")) == "blue"


def test_only_images_that_are_shown_are_part_of_the_digest(clip, four, tmp_path):
    folder = Path(shutil.copytree(MINI, tmp_path / "flamingo"))
    shutil.copy(folder / "demonstrations/00.png", folder / "demonstrations/01.png")
    plain, shown = load_victim(str(folder), clip), load_victim(str(folder), clip, {"shots": "4"})
    assert plain.digests() == load_victim(MINI, clip).digests()
    assert shown.digests()["demonstrations"] != four.digests()["demonstrations"]


def test_answers_are_decoded_as_the_settings_say_for_the_kind_of_question(clip, monkeypatch):
    used, own = [], OpenFlamingo.generate

    def generate(self, *arguments, decoding, **options):
        used.append(decoding)
        return own(self, *arguments, decoding=decoding, **options)

    monkeypatch.setattr(OpenFlamingo, "generate", generate)
    samples = data.build("mini-caption", 24, "validation").samples
    said = []
    for settings in ({}, {"beams": "3", "length_counts": "prompt"}):
        victim = load_victim("mini-openflamingo", clip, settings)
        images = torch.stack([victim.preprocess(s.image) for s in samples])
        prompts = [Prompt.of("captioning", s.id, s.prompt) for s in samples]
        said.append([answer.text for answer in victim.generate(images, prompts, max_new_tokens=20)])
        victim.at("float32").generate(images[:1], [Prompt.of("pope", "1", "is there a ring ?")], max_new_tokens=5)
    paper = [Decoding(3, -2.0, WithPrompt()), Decoding(3, 0.0, WithPrompt())]
    assert [decoding.beams for decoding in used[:2]] == [1, 1]
    assert used[2:] == paper
    assert said[0] != said[1]
