"""Tables: parquet files and datasets of the hub."""

import os
from pathlib import Path

import datasets
import pytest

from bench.data.images import open_image
from bench.data.readers import load
from bench.data.specs import parse
from tests.bench.data.small import png, refused


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


PICTURES = [{"bytes": png((k, 0, 0), (5, 4)), "path": f"{k}.png"} for k in range(3)]
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
        ({"question": "qestion"}, ["unknown column of dataset 't' 'qestion'", "did you mean 'question'?", "photo"]),
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
