"""VQAv2's two files."""

import pytest

from bench.data.images import open_image
from bench.data.readers import load
from tasks import vqa
from tests.bench.data.small import VQA, make_vqa, png, refused, write


def test_vqa_joins_by_question_id_and_keeps_the_order_of_the_questions(tmp_path):
    make_vqa(tmp_path, questions=(20, 10, 30), annotations=(10, 30, 99, 20), answers=("no", "yes", "no"))
    dataset = load("vqav2", {**VQA, "prompt_suffix": "\nShort."}, tmp_path)
    assert [s.id for s in dataset.samples] == ["20", "10", "30"]
    assert dataset.samples[0].references == ("no20", "yes20", "no20")
    assert {s.group for s in dataset.samples} == {"7"}
    assert (dataset.prompt_suffix, dataset.max_new_tokens) == ("\nShort.", 5)
    assert dataset.samples[1].prompt == "q10?"


@pytest.mark.parametrize(("present", "expected"), [((), "jpg"), (("png",), "png"), (("jpg", "png"), "jpg")])
def test_vqa_finds_images_by_their_official_name(tmp_path, present, expected):
    make_vqa(tmp_path)
    for extension in present:
        write(tmp_path / f"val2014/COCO_val2014_000000000007.{extension}", png())
    image = load("vqav2", VQA, tmp_path).samples[0].image
    assert image == tmp_path / f"val2014/COCO_val2014_000000000007.{expected}"
    if not present:
        refused(lambda: open_image(image), image, "download the images")


@pytest.mark.parametrize(
    ("changes", "file", "words"),
    [
        ({"questions": (10, 20, 10)}, "questions", ["question_id 10 comes twice", "remove one"]),
        ({"annotations": (10, 20, 20)}, "annotations", ["question_id 20 comes twice", "remove one"]),
        ({"annotations": (10,)}, "annotations", ["no annotation for question_id 20", "same release"]),
        ({"questions": ()}, "questions", ["no questions", "official file"]),
        ({"answers": ()}, "annotations", ["question_id 10 has no answers", "split with answers"]),
    ],
    ids=["question-twice", "annotation-twice", "unanswered", "none", "no-answers"],
)
def test_contradictions_in_vqa_json_are_named(tmp_path, changes, file, words):
    make_vqa(tmp_path, **changes)
    refused(lambda: load("vqav2", VQA, tmp_path), tmp_path / VQA[file], *words)


def test_an_annotation_about_another_image_is_named(tmp_path):
    make_vqa(tmp_path)
    path = tmp_path / VQA["annotations"]
    path.write_text(path.read_text().replace('"image_id": 7', '"image_id": 8'))
    refused(lambda: load("vqav2", VQA, tmp_path), path, "image 8", "image 7", "same release")


@pytest.mark.parametrize("name", ["../outside.png", "a/../../outside", "/etc/passwd.png", "/etc/passwd", "a\0b"])
def test_an_image_outside_the_folder_is_refused(tmp_path, name):
    write(tmp_path / "outside.png", png())
    make_vqa(tmp_path, image=name)
    refused(lambda: load("x", VQA, tmp_path), tmp_path / VQA["questions"], "question_id 10: image_id", repr(name)[:-1])


def test_images_may_lie_in_folders_of_the_folder(tmp_path):
    make_vqa(tmp_path, image="train/7.png")
    write(tmp_path / "val2014/train/7.png", png())
    assert open_image(load("x", VQA, tmp_path).samples[0].image).size == (4, 3)


@pytest.mark.parametrize(("annotators", "highest"), [(1, "0.0"), (2, "33.3"), (3, "66.7")])
def test_few_annotators_and_how_high_the_accuracy_can_go_are_named(tmp_path, annotators, highest):
    make_vqa(tmp_path, answers=("yes",) * annotators)
    dataset = load("x", VQA, tmp_path)
    (note,) = dataset.notes
    assert "2 of 2 questions have fewer than 4 annotators' answers" in note
    assert f"cannot exceed {highest} %" in note
    best = [vqa.VQA(dataset).score(sample.references[0], sample) for sample in dataset.samples]
    assert f"{sum(best) / len(best):.1f}" == highest, "as the metric itself counts"


def test_four_annotators_are_enough(tmp_path):
    make_vqa(tmp_path, answers=("yes",) * 4)
    dataset = load("x", VQA, tmp_path)
    assert dataset.notes == ()
    assert vqa.VQA(dataset).score("yes10", dataset.samples[0]) == 100


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"questions": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"questions": [{"question_id": ' + b"9" * 5000 + b"}]}", "a number that is none"),
        (b'{"questions": [{"question_id": true}]}', "'question_id' is True, not int | str"),
        (
            b'{"questions": [{"question_id": 10, "image_id": 7, "question": "\\ud800"}]}',
            "which is no text in Unicode",
        ),
    ],
    ids=["deep", "digits", "bool", "surrogate"],
)
def test_json_that_python_trips_over_is_named(tmp_path, content, words):
    make_vqa(tmp_path)
    write(tmp_path / VQA["questions"], content)
    refused(lambda: load("x", VQA, tmp_path), tmp_path / VQA["questions"], words)
