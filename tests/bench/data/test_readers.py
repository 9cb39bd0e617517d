"""What every format's reader refuses, and rows that are none."""

from inspect import signature

import pytest

from bench import registry
from bench.data.readers import load, reader
from bench.data.roles import ROLES
from tests.bench.data.small import KARPATHY, VQA, WDS, entry, make_karpathy, make_vqa, refused


def test_an_unknown_format_gets_a_suggestion(tmp_path):
    refused(lambda: load("x", {**KARPATHY, "format": "karpaty"}, tmp_path), "'karpaty'", "did you mean 'karpathy'?")
    refused(lambda: load("x", {}, tmp_path), "'x' does not say format", "known: vqa, karpathy, webdataset")


def test_a_row_with_a_key_too_many_or_too_few_is_refused(tmp_path):
    refused(lambda: load("x", {**WDS, "foldr": 1}, tmp_path), "'x'", "'foldr'; did you mean 'folder'?")
    refused(lambda: load("x", {"format": "vqa", "questions": "q"}, tmp_path), "'x'", "needs annotations", '"?"')


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("samples", "9", "samples must be a number from 1, got '9'"),
        ("samples", True, "number from 1"),
        ("native_size", 1, "native_size must be true or false"),
        ("broken_below", "low", "broken_below must be a number from 0"),
        ("max_new_tokens", 0, "max_new_tokens must be a number from 1"),
        ("images", [], "images must be a path"),
        ("prompt_suffix", 3, "prompt_suffix must be a text"),
    ],
)
def test_a_value_of_another_kind_is_refused(tmp_path, key, value, words):
    make_vqa(tmp_path)
    refused(lambda: load("x", {**VQA, key: value}, tmp_path), "'x'", words)


def test_every_format_takes_the_settings_it_names_and_requires_those_without_a_default():
    for name in registry.READERS:
        found = reader(name)
        taken = signature(found.read).parameters.values()
        named = {p.name: p for p in taken if p.kind is p.KEYWORD_ONLY}
        roles = set(ROLES) if any(p.kind is p.VAR_KEYWORD for p in taken) else set()
        assert named.keys() == found.settings.keys() - roles, name
        assert {key for key, one in named.items() if one.default is one.empty} == {
            key for key, one in found.settings.items() if one.required
        }, name


@pytest.mark.parametrize("row", [KARPATHY, VQA, WDS], ids=lambda row: row["format"])
def test_a_missing_root_is_named(tmp_path, row):
    refused(lambda: load("x", row, tmp_path / "nowhere"), tmp_path / "nowhere", "'x'", "--data-root")


@pytest.mark.parametrize(
    ("row", "key", "name"),
    [
        (KARPATHY, "annotations", "dataset_coco.json"),
        (VQA, "questions", "v2_OpenEnded_mscoco_val2014_questions.json"),
        (VQA, "annotations", "v2_mscoco_val2014_annotations.json"),
    ],
    ids=["karpathy", "questions", "annotations"],
)
def test_a_missing_annotation_file_is_named(tmp_path, row, key, name):
    make_karpathy(tmp_path, [entry()])
    make_vqa(tmp_path)
    (tmp_path / row[key]).unlink()
    refused(lambda: load("x", row, tmp_path), tmp_path / name, f"download {name}", "--data-root")


@pytest.mark.parametrize(("row", "folder"), [(KARPATHY, "coco"), (VQA, "val2014")])
def test_a_missing_image_folder_is_named(tmp_path, row, folder):
    make_karpathy(tmp_path, [entry()])
    make_vqa(tmp_path)
    (tmp_path / folder).rmdir()
    refused(lambda: load("x", row, tmp_path), tmp_path / folder, "put it there")


def test_a_directory_in_place_of_a_file_is_named(tmp_path):
    (tmp_path / "coco").mkdir()
    (tmp_path / KARPATHY["annotations"]).mkdir()
    refused(lambda: load("x", KARPATHY, tmp_path), f"{KARPATHY['annotations']} is no file but a folder", "put")
