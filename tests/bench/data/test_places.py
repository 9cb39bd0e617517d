"""Datasets named by their place."""

import pytest

from bench.config import Request, resolve
from bench.data.images import fingerprint
from bench.data.readers import load
from bench.data.specs import is_spec, parse, told_apart
from bench.mini.data import build
from tests.bench.data.small import picture, refused


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
        "format": "vqa",
        "questions": "mine/test_questions.json",
        "annotations": "mine/test_annotations.json",
        "images": "mine/pictures",
        "max_new_tokens": 4,
        "prompt_suffix": "!",
        "selection": "seed-42",
    }
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
    assert {k: place.row[k] for k in ("question", "answers")} == {"question": "ask", "answers": "said"}
    assert (place.row["format"], place.row["source"], place.name) == ("parquet", "q.parquet", "q")


def test_a_toml_file_is_a_row_beside_its_data(questions, tmp_path):
    row = tmp_path / "harbour.toml"
    row.write_text(
        'format = "vqa"\nquestions = "mine/q.json"\nannotations = "mine/a.json"\nimages = "mine"\nsamples = 9\n'
    )
    place = parse(str(row), None, {"max_new_tokens": 4})
    assert (place.name, place.root, place.where) == ("harbour", tmp_path, str(row))
    assert (place.row["samples"], place.row["max_new_tokens"], place.row["selection"]) == (9, 4, "seed-42")


@pytest.mark.parametrize(
    ("text", "content", "words"),
    [
        ("voc:x", None, ["unknown format", "'voc'", "known: vqa, karpathy"]),
        ("vqa:absent", None, ["no dataset at", "absent", "--data-root"]),
        ("absent.toml", None, ["no such file", "absent.toml"]),
        ("row.toml", "format = ", ["row.toml is not TOML"]),
        ("row.toml", "a = 1", ["does not say format", "known: vqa"]),
        ("karpathy:.?max_new_tokens=x", None, ["max_new_tokens must be a number from 1, got 'x'"]),
    ],
)
def test_places_that_say_nothing_are_refused(tmp_path, text, content, words):
    if content is not None:
        (tmp_path / text).write_text(content)
    refused(lambda: parse(text, tmp_path, {}), *words)


def test_an_embedded_dataset_has_a_place_too(tmp_path):
    place = parse("mini:mini-shape?size=7", tmp_path, {"max_new_tokens": 4})
    assert (place.name, place.suits("zeroshot"), place.suits("vqa")) == ("mini-shape", True, False)
    assert fingerprint(load(place.name, place.row, place.root)) == fingerprint(build("mini-shape", 7))
    refused(lambda: parse("mini:mini-shap", tmp_path, {}), "embedded dataset 'mini-shap'; did you mean 'mini-shape'?")


def folders(root, *names):
    for name in names:
        picture(root / name / "cat" / "1.png")


def test_a_folders_name_is_kept_whole_and_a_files_type_left_out(tmp_path):
    folders(tmp_path, "v1.0")
    (tmp_path / "q.v2.parquet").write_bytes(b"")
    assert parse("imagefolder:v1.0", tmp_path, {}).name == "v1.0"
    assert parse("parquet:q.v2.parquet", tmp_path, {}).name == "q.v2"
    assert parse(f"hf:{tmp_path}/v1.0", None, {}).name == "v1.0", "not the whole path"
    refused(lambda: parse("hf:/no/such/folder", None, {}), "no dataset at /no/such/folder")


def test_equal_names_are_told_apart_by_the_parents(tmp_path):
    folders(tmp_path, "a/val", "b/val", "c")
    specs = [f"imagefolder:{name}" for name in ("a/val", "b/val", "c", "a/../a/val")]
    told = told_apart(["coco", *specs], tmp_path)
    places = [parse(spec, tmp_path, {}) for spec in told[1:]]
    assert [told[0], *(place.name for place in places)] == ["coco", "a-val", "b-val", "c"]
    again = [parse(place.where, None, {}) for place in places]
    assert [place.name for place in again] == ["a-val", "b-val", "c"], "what is said of a place leads back to its name"
    named = told_apart(["imagefolder:a/val?name=first", "imagefolder:b/val"], tmp_path)
    assert [parse(spec, tmp_path, {}).name for spec in named] == ["first", "val"]
    folders(tmp_path, "x/a/val")
    refused(lambda: told_apart([*specs, "imagefolder:x/a/val"], tmp_path), "both called 'a-val'", "?name=NAME")


def test_every_key_of_a_row_may_follow_a_place(tmp_path):
    folders(tmp_path, "pets")
    query = "samples=200&native_size=true&selection=first&templates=a {c}&templates=the {c}&name=mine"
    place = parse(f"imagefolder:pets?{query}", tmp_path, {})
    assert place.name == "mine"
    assert place.row == {
        "format": "imagefolder",
        "folder": "pets",
        "samples": 200,
        "native_size": True,
        "selection": "first",
        "templates": ["a {c}", "the {c}"],
    }
    (run,) = resolve(Request.of(encoder="clip", task="zeroshot", dataset=f"imagefolder:{tmp_path}/pets?samples=200"))
    assert run.samples == 200


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("samples=many", "samples must be a number from 1, got 'many'"),
        ("samples=0", "number from 1"),
        ("samples=" + "9" * 5000, "number from 1"),
        ("native_size=1", "native_size must be true or false"),
        ("broken_below=nan", "number from 0"),
        ("sampels=9", "did you mean 'samples'?"),
        ("samples=9&samples=10", "got ['9', '10']"),
        ("samples", "KEY=VALUE"),
        ("name=a/b", "name must be a name"),
        ("classnames=\0", "classnames must be a path"),
    ],
)
def test_a_wrong_value_after_the_question_mark_is_named(tmp_path, query, words):
    folders(tmp_path, "pets")
    refused(lambda: parse(f"imagefolder:pets?{query}", tmp_path, {}), "imagefolder:pets?", words)


def test_a_toml_row_may_be_overruled_and_named(questions, tmp_path):
    row = tmp_path / "row.toml"
    files = 'questions = "q"\nannotations = "a"\nimages = "mine"\n'
    row.write_text(f'format = "vqa"\n{files}max_new_tokens = 5\nname = "n"\n')
    assert (parse(str(row), None, {}).name, parse(f"{row}?name=m&samples=3", None, {}).name) == ("n", "m")
    assert parse(f"{row}?samples=3", None, {}).row["samples"] == 3
    row.write_text('format = "vqa"\nquestions = 3\n')
    refused(lambda: parse(str(row), None, {}), row, "questions must be a path")
    row.write_text('format = "vqa"\nquestions = "q"\n')
    refused(lambda: parse(str(row), None, {}), row, "needs annotations")


def test_places_that_no_file_system_holds_are_refused(tmp_path):
    for text in (f"vqa:{'a' * 300}", "vqa:a\0b", f"{'a' * 300}.toml", "vqa:\ud800"):
        refused(lambda text=text: parse(text, tmp_path, {}), "can be no place of a dataset")
