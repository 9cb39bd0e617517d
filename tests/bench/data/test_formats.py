"""Folders of classes, tables with columns, and datasets named by their place."""

import io
import json
import os
from pathlib import Path

import datasets
import pytest
from PIL import Image

from bench.data.captions import karpathy
from bench.data.folders import imagefolder
from bench.data.images import open_image
from bench.data.readers import load
from bench.data.specs import is_spec, parse
from bench.errors import UsageError


def picture(path: Path, colour=(9, 8, 7)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (5, 4), colour).save(path)
    return path


def png(colour=(9, 8, 7)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (5, 4), colour).save(buffer, "png")
    return buffer.getvalue()


def refused(action, *words) -> None:
    with pytest.raises(UsageError) as caught:
        action()
    for word in words:
        assert str(word) in str(caught.value)


# A folder a class.


@pytest.fixture
def classes(tmp_path):
    for name in ("n02/b.jpg", "n01/z.png", "n01/deep/a.JPEG", "n01/notes.txt", ".hidden/x.png"):
        path = tmp_path / "birds" / name
        picture(path) if path.suffix != ".txt" else path.write_text("no picture")
    return tmp_path / "birds"


def test_an_imagefolder_has_its_classes_in_alphabetical_order(classes, tmp_path):
    dataset = imagefolder("birds", tmp_path, folder="birds")
    assert dataset.classnames == ("n01", "n02")
    assert [(s.id, s.label, s.references) for s in dataset.samples] == [
        ("n01/deep/a.JPEG", 0, ("n01",)), ("n01/z.png", 0, ("n01",)), ("n02/b.jpg", 1, ("n02",)),
    ]  # fmt: skip
    assert dataset.chance == 50
    assert dataset.templates == ("a photo of a {c}.",)


@pytest.mark.parametrize("content", ["great tit\nwren\n", "n02\twren\nn01\tgreat tit\nn03\tcrow\n"])
def test_class_names_come_from_a_file_in_order_or_by_folder(classes, tmp_path, content):
    (classes / "classnames.txt").write_text(content)
    assert imagefolder("birds", tmp_path, folder="birds").classnames == ("great tit", "wren")
    (classes / "classnames.txt").rename(tmp_path / "names.txt")
    assert imagefolder("birds", tmp_path, folder="birds", classnames="names.txt").classnames == ("great tit", "wren")


@pytest.mark.parametrize(("content", "words"), [
    ("one\n", ["2 classes' folders", "1 class names", "same set"]),
    ("n01\ttit\nn03\twren\n", ["no line for the folder 'n02'", "add it"]),
    ("", ["is empty"]),
])  # fmt: skip
def test_class_names_that_do_not_fit_are_refused(classes, tmp_path, content, words):
    (classes / "classnames.txt").write_text(content)
    refused(lambda: imagefolder("birds", tmp_path, folder="birds"), classes / "classnames.txt", *words)


def test_imagenet_needs_its_thousand_folders(classes, tmp_path):
    refused(lambda: imagefolder("x", tmp_path, folder="birds", classnames="imagenet"), "2 classes'", "1000 class names")


def test_templates_of_a_folder_and_of_a_row(classes, tmp_path):
    (classes / "zeroshot_classification_templates.txt").write_text("a {c}!\n")
    assert imagefolder("x", tmp_path, folder="birds").templates == ("a {c}!",)
    assert imagefolder("x", tmp_path, folder="birds", templates=["{c}?"]).templates == ("{c}?",)
    assert len(imagefolder("x", tmp_path, folder="birds", templates="imagenet").templates) == 80
    refused(lambda: imagefolder("x", tmp_path, folder="birds", templates=["{}"]), "'x'", "{c}")
    refused(lambda: imagefolder("x", tmp_path, folder="birds", templates="imagnet"), "'imagnet'", "fix its row")


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "birds" / "n01").mkdir(parents=True)
    refused(lambda: imagefolder("x", tmp_path, folder="birds"), tmp_path / "birds", "no images")
    refused(lambda: imagefolder("x", tmp_path, folder="nowhere"), tmp_path / "nowhere", "put it there")


# Captions.


def entry(cocoid, *raws):
    return {"filename": f"{cocoid}.jpg", "cocoid": cocoid, "split": "test", "sentences": [{"raw": r} for r in raws]}


def captions(root, entries, annotations, **options):
    (root / "karpathy.json").write_text(json.dumps({"images": entries}))
    (root / "coco.json").write_text(json.dumps({"annotations": annotations}))
    return karpathy(
        "coco", root, annotations="karpathy.json", images=".", prompt="p", references="coco.json", **options
    )


def test_references_are_joined_by_image_id_and_attacks_follow_the_sentences(tmp_path):
    given = [{"image_id": 2, "id": 9, "caption": "two"}, {"image_id": 1, "id": 8, "caption": "one"},
             {"image_id": 2, "id": 7, "caption": "deux"}, {"image_id": 3, "id": 6, "caption": "?"}]  # fmt: skip
    first, second = captions(tmp_path, [entry(1, "one"), entry(2, "a", "b", "c")], given).samples
    assert (first.references, first.attack_references) == (("one",), None)
    assert (second.references, second.attack_references) == (("two", "deux"), ("a", "b", "c"))


def test_an_image_without_references_is_named(tmp_path):
    given = [{"image_id": 1, "id": 8, "caption": "one"}]
    refused(lambda: captions(tmp_path, [entry(1, "a"), entry(2, "b")], given), tmp_path / "coco.json", "image 2")
    refused(lambda: captions(tmp_path, [entry(1, "a")], [{"image_id": 1}]), "image 1", "'caption'")


def test_seeded_targets_want_enough_images(tmp_path):
    options = {"targets": [{"text": "hi", "seed": 1}], "images_per_target": 2}
    refused(lambda: captions(tmp_path, [entry(1, "a")], [], **options), "has 1 images, 2 are asked")
    samples = captions(tmp_path, [entry(1, "a"), entry(2, "b")], [], **options).samples
    assert {s.id for s in samples} == {"1-1", "1-2"}
    assert {s.references for s in samples} == {("hi",)}
    refused(lambda: captions(tmp_path, [entry(1, "a")], [], targets=[{"text": "hi"}]), "seed = ...", "fix")


# Tables.


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def parquet(path: Path, columns: dict, **features) -> Path:
    rows = datasets.Dataset.from_dict(columns)
    for column, feature in features.items():
        rows = rows.cast_column(column, feature)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.to_parquet(str(path))
    return path


PICTURES = [{"bytes": png((k, 0, 0)), "path": f"{k}.png"} for k in range(3)]
QUESTIONS = {
    "image": PICTURES,
    "question": ["a?", "b?", "c?"],
    "answers": [["yes", "no"], ["x"], ["y", "y"]],
    "question_id": [7, 5, 6],
    "photo": ["p", "q", "p"],
}


def table(root, **row):
    return load("t", {"format": "table", "source": "t.parquet", **row}, root)


def test_a_table_of_questions(tmp_path):
    parquet(tmp_path / "t.parquet", QUESTIONS, image=datasets.Image())
    dataset = table(tmp_path, columns={"id": "question_id", "image_id": "photo"}, max_new_tokens=5, prompt_suffix="!")
    assert [(s.id, s.prompt, s.references, s.group) for s in dataset.samples] == [
        ("7", "a?", ("yes", "no"), "p"), ("5", "b?", ("x",), "q"), ("6", "c?", ("y", "y"), "p"),
    ]  # fmt: skip
    assert [open_image(s.image).getpixel((0, 0)) for s in dataset.samples] == [(k, 0, 0) for k in range(3)]
    assert (dataset.max_new_tokens, dataset.prompt_suffix, dataset.classnames) == (5, "!", ())


def test_answers_may_be_records_as_vqav2_has_them(tmp_path):
    answers = [[{"answer": "yes", "answer_id": 1}, {"answer": "no", "answer_id": 2}]] * 3
    parquet(tmp_path / "t.parquet", {**QUESTIONS, "answers": answers}, image=datasets.Image())
    assert table(tmp_path).samples[1].references == ("yes", "no")


def test_a_table_of_captions_and_one_of_labels(tmp_path):
    parquet(tmp_path / "t.parquet", {"img": PICTURES, "text": ["one", "two", "three"]}, img=datasets.Image())
    captioned = table(tmp_path, columns={"image": "img", "captions": "text"}, prompt="describe")
    assert [(s.id, s.prompt, s.references) for s in captioned.samples][2] == ("2", "describe", ("three",))
    labels = datasets.ClassLabel(names=["cat", "dog"])
    parquet(tmp_path / "l/t.parquet", {"image": PICTURES, "label": [1, 0, 1]}, image=datasets.Image(), label=labels)
    labelled = table(tmp_path / "l", templates=["a {c}"])
    assert (labelled.classnames, labelled.templates) == (("cat", "dog"), ("a {c}",))
    assert [(s.label, s.references) for s in labelled.samples] == [(1, ("dog",)), (0, ("cat",)), (1, ("dog",))]
    parquet(tmp_path / "n/t.parquet", {"image": [png()], "label": ["b"]})
    assert table(tmp_path / "n").classnames == ("b",)
    assert open_image(table(tmp_path / "n").samples[0].image).size == (5, 4)


@pytest.mark.parametrize(("columns", "words"), [
    ({"question": "qestion"}, ["unknown column of dataset 't' 'qestion'", "did you mean 'question'?", "photo"]),
    ({"query": "question"}, ["unknown role", "'query'", "known: id, image"]),
    ({"id": "photo"}, ["t.parquet, row 2", "id p comes twice"]),
    ({"answers": "question_id"}, ["row 0", "answers"]),
    ({"question": "question_id"}, ["row 0: question is '7', not a text"]),
])  # fmt: skip
def test_columns_that_do_not_fit_are_named(tmp_path, columns, words):
    parquet(tmp_path / "t.parquet", QUESTIONS, image=datasets.Image())
    refused(lambda: table(tmp_path, columns=columns), *words)


@pytest.mark.parametrize(("drop", "words"), [
    ("image", ["no column 'image'", "image=COLUMN of question"]),
    ("question", ["no column 'question'"]),
    ("answers", ["no column 'answers', 'captions' or 'label'", "photo"]),
])  # fmt: skip
def test_a_missing_column_is_named(tmp_path, drop, words):
    parquet(tmp_path / "t.parquet", {k: v for k, v in QUESTIONS.items() if k != drop})
    refused(lambda: table(tmp_path), *words)


def test_bad_cells_are_named(tmp_path):
    parquet(tmp_path / "t.parquet", {**QUESTIONS, "answers": [["yes"], [], ["y"]]}, image=datasets.Image())
    refused(lambda: table(tmp_path), "row 1 has no answers")
    parquet(tmp_path / "l/t.parquet", {"image": [png()], "label": [3]})
    refused(lambda: table(tmp_path / "l"), "numbers without names", "classnames")
    (tmp_path / "l/names.txt").write_text("a\nb\n")
    refused(lambda: table(tmp_path / "l", classnames="names.txt"), "row 0: label 3", "2 classes")
    parquet(tmp_path / "b/t.parquet", {"image": [b"<html>", png()], "label": ["x", "y"]})
    refused(lambda: open_image(table(tmp_path / "b").samples[0].image), "row 0, column 'image'", "not an image")


def test_a_table_that_cannot_be_loaded_is_named(tmp_path):
    (tmp_path / "t.parquet").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    refused(lambda: table(tmp_path), "t.parquet cannot be loaded")
    refused(lambda: table(tmp_path, source="absent.parquet"), "absent.parquet", "local cache of the hub")


def test_a_hub_data_set_is_read_from_the_local_cache(tmp_path, monkeypatch):
    hub = tmp_path / "hub"
    snapshot = hub / "datasets--someone--questions" / "snapshots" / ("a" * 40)
    parquet(snapshot / "data/validation-00000-of-00001.parquet", QUESTIONS, image=datasets.Image())
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(hub))
    place = parse("hf:someone/questions?split=validation&id=question_id", tmp_path, {"max_new_tokens": 3})
    dataset = load(place.name, place.row, place.root)
    assert (place.name, [s.id for s in dataset.samples], dataset.max_new_tokens) == (
        "someone-questions", ["7", "5", "6"], 3,
    )  # fmt: skip
    absent = parse("hf:someone/others", tmp_path, {})
    refused(lambda: load("x", absent.row, absent.root), "someone/others", "local cache of the hub", "hf download")


# Places.


def test_places_are_told_from_names():
    assert [is_spec(text) for text in ("coco", "vqa:x", "row.toml", "imagenet-r")] == [False, True, True, False]


@pytest.fixture
def questions(tmp_path):
    folder = tmp_path / "mine"
    picture(folder / "pictures" / "1.jpg")
    for what in ("questions", "annotations"):
        (folder / f"test_{what}.json").write_text("{}")
    return folder


def test_a_vqa_folder_shows_what_is_what(questions, tmp_path):
    place = parse("vqa:mine", tmp_path, {"max_new_tokens": 4, "prompt": "unused", "prompt_suffix": "!"})
    assert place.row == {
        "format": "vqa", "questions": "mine/test_questions.json", "annotations": "mine/test_annotations.json",
        "images": "mine/pictures", "max_new_tokens": 4, "prompt_suffix": "!", "selection": "seed-42",
    }  # fmt: skip
    assert (place.name, place.root, place.where) == ("mine", tmp_path, f"vqa:{questions}")
    assert parse(f"vqa:{questions}?max_new_tokens=9", None, {"max_new_tokens": 4}).row["max_new_tokens"] == 9
    assert (place.suits("vqa"), place.suits("zeroshot"), place.suits("of a plugin")) == (True, False, True)


def test_a_vqa_folder_that_is_ambiguous_is_settled_by_words(questions, tmp_path):
    (questions / "train_questions.json").write_text("{}")
    refused(lambda: parse("vqa:mine", tmp_path, {}), "2 files", "train_questions.json", "?questions=FILE")
    row = parse("vqa:mine?questions=test_questions.json", tmp_path, {}).row
    assert row["questions"] == "mine/test_questions.json"
    (questions / "train_questions.json").unlink()
    picture(questions / "others" / "1.jpg")
    refused(lambda: parse("vqa:mine", tmp_path, {}), "several folders of images (others, pictures)", "?images=FOLDER")
    assert parse("vqa:mine?images=others", tmp_path, {}).row["images"] == "mine/others"
    (questions / "test_annotations.json").unlink()
    refused(lambda: parse("vqa:mine?images=others", tmp_path, {}), "no file *annotations*.json")


def test_a_karpathy_folder_leaves_coco_style_files_aside(tmp_path):
    for name in ("dataset_flickr30k.json", "dataset_flickr30k_coco_style.json"):
        (tmp_path / name).write_text("{}")
    row = parse(f"karpathy:{tmp_path}", None, {"prompt": "describe", "max_new_tokens": 20}).row
    assert row["annotations"] == str(tmp_path / "dataset_flickr30k.json")
    assert (row["prompt"], row["max_new_tokens"]) == ("describe", 20)


def test_a_parquet_file_takes_columns_after_a_question_mark(tmp_path):
    (tmp_path / "q.parquet").write_bytes(b"")
    place = parse("parquet:q.parquet?question=ask&answers=said", tmp_path, {"max_new_tokens": 5})
    assert place.row["columns"] == {"question": "ask", "answers": "said"}
    assert (place.row["format"], place.row["source"], place.name) == ("table", "q.parquet", "q")


def test_a_toml_file_is_a_row_beside_its_data(questions, tmp_path):
    row = tmp_path / "harbour.toml"
    row.write_text(
        'format = "vqa"\nquestions = "mine/q.json"\nannotations = "mine/a.json"\nimages = "mine"\nsamples = 9\n'
    )
    place = parse(str(row), None, {"max_new_tokens": 4})
    assert (place.name, place.root, place.where) == ("harbour", tmp_path, str(row))
    assert (place.row["samples"], place.row["max_new_tokens"], place.row["selection"]) == (9, 4, "seed-42")


@pytest.mark.parametrize(("text", "content", "words"), [
    ("voc:x", None, ["unknown format", "'voc'", "known: vqa, karpathy"]),
    ("vqa:absent", None, ["no dataset at", "absent", "--data-root"]),
    ("absent.toml", None, ["no such file", "absent.toml"]),
    ("row.toml", "format = ", ["row.toml is not TOML"]),
    ("row.toml", "a = 1", ["does not say format", "known: vqa"]),
    ("webdataset:.?max_new_tokens=x", None, ["max_new_tokens must be a number"]),
])  # fmt: skip
def test_places_that_say_nothing_are_refused(tmp_path, text, content, words):
    if content is not None:
        (tmp_path / text).write_text(content)
    refused(lambda: parse(text, tmp_path, {}), *words)


def test_no_reader_uses_the_network(tmp_path, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a reader reached for the network"))
    parquet(tmp_path / "t.parquet", QUESTIONS, image=datasets.Image())
    table(tmp_path)
    assert "HF_HUB_OFFLINE" not in os.environ
    refused(lambda: table(tmp_path, source="someone/absent"), "local cache")
