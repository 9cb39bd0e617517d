"""Tables: parquet files and datasets of the hub."""

import os

import datasets
import pytest

from bench.data.images import open_image
from bench.data.readers import load
from bench.data.specs import parse
from tests.bench.data.small import png, refused
from tests.bench.data.tables import PICTURES, QUESTIONS, parquet, table

SHAPES = ["small_circle", "big_square"]
pytestmark = pytest.mark.usefixtures("own_cache")


def test_a_table_of_questions(tmp_path):
    parquet(tmp_path / "t.parquet", QUESTIONS, image=datasets.Image())
    dataset = table(tmp_path, columns={"id": "question_id", "image_id": "photo"}, max_new_tokens=5, prompt_suffix="!")
    assert [(s.id, s.prompt, s.references, s.group) for s in dataset.samples] == [
        ("7", "a?", ("yes", "no"), "p"),
        ("5", "b?", ("x",), "q"),
        ("6", "c?", ("y", "y"), "p"),
    ]
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
    parquet(tmp_path / "n/t.parquet", {"image": [png(size=(5, 4))], "label": ["b"]})
    assert table(tmp_path / "n").classnames == ("b",)
    assert open_image(table(tmp_path / "n").samples[0].image).size == (5, 4)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (
            {"question": "qestion"},
            ["unknown column", "(t.parquet) 'qestion'; did you mean 'question'?", "photo"],
        ),
        ({"query": "question"}, ["unknown role", "'query'", "known: id, image"]),
        ({"id": "photo"}, ["t.parquet, row 2", "id p comes twice"]),
        ({"answers": "question_id"}, ["row 0", "answers"]),
        ({"question": "question_id"}, ["row 0: question is '7', not a text"]),
    ],
)
def test_columns_that_do_not_fit_are_named(tmp_path, columns, words):
    parquet(tmp_path / "t.parquet", QUESTIONS, image=datasets.Image())
    refused(lambda: table(tmp_path, columns=columns), *words)


@pytest.mark.parametrize(
    ("drop", "words"),
    [
        ("image", ["no column 'image'", "image=COLUMN of question"]),
        ("question", ["no column 'question'"]),
        ("answers", ["no column 'answers', 'captions' or 'label'", "photo"]),
    ],
)
def test_a_missing_column_is_named(tmp_path, drop, words):
    parquet(tmp_path / "t.parquet", {k: v for k, v in QUESTIONS.items() if k != drop})
    refused(lambda: table(tmp_path), *words)


def test_bad_cells_are_named(tmp_path):
    parquet(tmp_path / "t.parquet", {**QUESTIONS, "answers": [["yes"], [], ["y"]]}, image=datasets.Image())
    refused(lambda: table(tmp_path), "row 1 has no answers")
    parquet(tmp_path / "l/t.parquet", {"image": [png(size=(5, 4))], "label": [3]})
    refused(lambda: table(tmp_path / "l"), "numbers without names", "classnames")
    (tmp_path / "l/names.txt").write_text("a\nb\n")
    refused(lambda: table(tmp_path / "l", classnames="names.txt"), "row 0: label 3", "2 classes")
    parquet(tmp_path / "b/t.parquet", {"image": [b"<html>", png(size=(5, 4))], "label": ["x", "y"]})
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
        "someone-questions",
        ["7", "5", "6"],
        3,
    )
    absent = parse("hf:someone/others", tmp_path, {})
    refused(lambda: load("x", absent.row, absent.root), "someone/others", "local cache of the hub", "hf download")


def test_no_reader_uses_the_network(tmp_path, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a reader reached for the network"))
    parquet(tmp_path / "t.parquet", QUESTIONS, image=datasets.Image())
    table(tmp_path)
    assert "HF_HUB_OFFLINE" not in os.environ
    refused(lambda: table(tmp_path, source="someone/absent"), "local cache")


@pytest.mark.parametrize("text", ["['a', 'b']", '["a", "b"]', "('a', 'b')", ' ["a",\n "b"] '])
def test_a_list_stored_as_text_is_a_list(tmp_path, text):
    parquet(tmp_path / "t.parquet", {**QUESTIONS, "answers": [text, "[unclear]", "[A dog's tail]"]})
    assert [sample.references for sample in table(tmp_path).samples] == [
        ("a", "b"),
        ("[unclear]",),
        ("[A dog's tail]",),
    ]


@pytest.mark.parametrize("text", ["['a' 'b']", "['a', 'b]", "['a', 1]", "[1, 2]", "{'answer': 'a'}", "['a', 'b'", "[]"])
def test_what_looks_like_a_list_and_is_none_is_refused(tmp_path, text):
    parquet(tmp_path / "t.parquet", {**QUESTIONS, "answers": ["yes", text, "no"]})
    refused(lambda: table(tmp_path), "t.parquet, row 1: answers is", "no list of texts")


def test_few_annotators_are_named(tmp_path):
    parquet(tmp_path / "t.parquet", QUESTIONS)
    assert "cannot exceed 22.2 %" in table(tmp_path).notes[0]  # of two, one and two annotators


@pytest.mark.parametrize(
    "labels", [datasets.ClassLabel(names=["small_circle", "big_square"]), datasets.Value("string")]
)
def test_labels_lose_their_underscores_as_folders_names_do(tmp_path, labels):
    parquet(tmp_path / "t.parquet", {"image": [png()] * 2, "label": SHAPES}, label=labels)
    dataset = table(tmp_path)
    assert set(dataset.classnames) == {"small circle", "big square"}
    assert [sample.references for sample in dataset.samples] == [("small circle",), ("big square",)]
    assert [dataset.classnames[sample.label] for sample in dataset.samples] == ["small circle", "big square"]


def test_class_names_of_a_file_are_taken_to_the_letter(tmp_path):
    (tmp_path / "names.txt").write_text("a_b\nc\n")
    parquet(tmp_path / "t.parquet", {"image": [png()] * 2, "label": [0, 1]})
    assert table(tmp_path, classnames="names.txt").classnames == ("a_b", "c")


@pytest.mark.parametrize("cells", [{"image_id": [1, None, 1]}, {"id": [[1], [2], [3]]}, {"id": [None, 1, 2]}])
def test_an_id_is_a_number_or_a_text(tmp_path, cells):
    parquet(tmp_path / "t.parquet", {**QUESTIONS, **cells})
    refused(lambda: table(tmp_path), "t.parquet, row", "not an id")
