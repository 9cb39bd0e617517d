"""Karpathy's JSON and COCO's captions."""

import json

import pytest

from bench.data.captions import karpathy
from bench.data.readers import load
from tasks.base import Sample
from tests.bench.data.small import HTML, KARPATHY, LFS, entry, make_karpathy, refused, write


def test_karpathy_reads_the_test_split_in_the_order_of_the_file(tmp_path):
    entries = [entry(9), entry(3, split="restval"), entry(4, captions=("b", "a", "b"), filepath="train2014")]
    make_karpathy(tmp_path, entries)
    dataset = load("coco", KARPATHY, tmp_path)
    assert [s.id for s in dataset.samples] == ["9", "4"]
    assert dataset.samples[1] == Sample(
        "4", tmp_path / "coco/train2014/COCO_val2014_000000000004.jpg", "describe", ("b", "a", "b"), "4"
    )
    assert dataset.max_new_tokens == 20


def test_flickr_has_neither_folders_nor_coco_ids(tmp_path):
    absent = {k: v for k, v in entry(filename="1007129816.jpg").items() if k not in ("filepath", "cocoid")}
    empty = {**entry(), "filename": "36979.jpg", "filepath": "", "cocoid": None}
    make_karpathy(tmp_path, [absent, empty])
    samples = load("flickr30k", KARPATHY, tmp_path).samples
    assert [(s.id, s.group, s.image) for s in samples] == [
        ("1007129816", "1007129816", tmp_path / "coco/1007129816.jpg"),
        ("36979", "36979", tmp_path / "coco/36979.jpg"),
    ]


def test_targets_are_dealt_out_in_turn(tmp_path):
    make_karpathy(tmp_path, [entry(1), *(entry(i, captions=()) for i in (2, 3))])
    row = {**KARPATHY, "targets": ["x", "y"]}
    samples = load("stealth", row, tmp_path).samples
    assert [s.references for s in samples] == [("x",), ("y",), ("x",)]
    assert [bool(s.captions) for s in samples] == [True, False, False]
    refused(lambda: load("stealth", {**KARPATHY, "targets": "x"}, tmp_path), "targets must be a list of texts")
    refused(lambda: load("stealth", {**KARPATHY, "targets": []}, tmp_path), "targets must be a list of texts")


def test_captions_are_kept_to_the_letter(tmp_path):
    captions = ("Ein Café – naïve 猫\n", "two\nlines ", "emoji 🐈", "")
    make_karpathy(tmp_path, [entry(captions=captions)])
    assert load("coco", KARPATHY, tmp_path).samples[0].references == captions


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.encode("utf-16"),
    ],
    ids=["BOM", "CRLF", "UTF-16"],
)
def test_json_of_other_systems_is_accepted(tmp_path, encode):
    make_karpathy(tmp_path, [])
    text = json.dumps({"images": [entry(captions=("café",))]}, indent=1, ensure_ascii=False)
    write(tmp_path / KARPATHY["annotations"], encode(text))
    assert load("coco", KARPATHY, tmp_path).samples[0].references == ("café",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["is empty", "download it again"]),
        (HTML, ["HTML", "download the file itself"]),
        (LFS, ["git-lfs pointer", "git lfs pull"]),
        (b'{"images": [{"split": "te', ["not whole JSON", "line 1 column", "download again"]),
        (b"\x1f\x8b\x08\x00\xff\xfe", ["UTF-8", "unpacked"]),
        (b"[]", ["a JSON list", "Karpathy annotations"]),
        (b"{}", ["no field 'images'", "official file"]),
        (b'{"images": {}}', ["'images' is {}, not list", "official file"]),
        (b'{"images": [1]}', ["no field 'split' in 1", "official file"]),
    ],
    ids=["empty", "html", "lfs", "truncated", "gzip", "list", "no-key", "wrong-type", "no-entry"],
)
def test_damaged_json_is_named(tmp_path, content, words):
    make_karpathy(tmp_path, [entry()])
    path = write(tmp_path / KARPATHY["annotations"], content)
    refused(lambda: load("coco", KARPATHY, tmp_path), path, *words)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([entry(1), entry(2), entry(1)], ["image id 1 comes twice", "remove one"]),
        ([entry(5, captions=())], ["image 5 has no sentences", "remove the image"]),
        ([entry(5, sentences=[{"tokens": []}])], ["image 5: no field 'raw'", "official file"]),
        ([entry(5, filepath=3)], ["'filepath' is 3", "official file"]),
        ([entry(1, split="Test"), entry(2, split="val")], ["'test'", "splits: Test, val", "official split file"]),
        ([], ["splits: none", "official split file"]),
    ],
    ids=["twice", "no-captions", "no-raw", "filepath", "unknown-split", "no-images"],
)
def test_contradictions_in_karpathy_json_are_named(tmp_path, entries, words):
    make_karpathy(tmp_path, entries)
    refused(lambda: load("coco", KARPATHY, tmp_path), tmp_path / KARPATHY["annotations"], *words)


def bare(cocoid, *raws):
    return {"filename": f"{cocoid}.jpg", "cocoid": cocoid, "split": "test", "sentences": [{"raw": r} for r in raws]}


def captions(root, entries, annotations, **options):
    (root / "karpathy.json").write_text(json.dumps({"images": entries}))
    (root / "coco.json").write_text(json.dumps({"annotations": annotations}))
    return karpathy(
        "coco", root, annotations="karpathy.json", images=".", prompt="p", references="coco.json", **options
    )


def test_references_are_joined_by_image_id_and_attacks_follow_the_sentences(tmp_path):
    given = [
        {"image_id": 2, "id": 9, "caption": "two"},
        {"image_id": 1, "id": 8, "caption": "one"},
        {"image_id": 2, "id": 7, "caption": "deux"},
        {"image_id": 3, "id": 6, "caption": "?"},
    ]
    first, second = captions(tmp_path, [bare(1, "one"), bare(2, "a", "b", "c")], given).samples
    assert (first.references, first.attack_references) == (("one",), None)
    assert (second.references, second.attack_references) == (("two", "deux"), ("a", "b", "c"))


def test_an_image_without_references_is_named(tmp_path):
    given = [{"image_id": 1, "id": 8, "caption": "one"}]
    refused(lambda: captions(tmp_path, [bare(1, "a"), bare(2, "b")], given), tmp_path / "coco.json", "image 2")
    refused(lambda: captions(tmp_path, [bare(1, "a")], [{"image_id": 1}]), "image 1", "'caption'")


def test_seeded_targets_want_enough_images(tmp_path):
    options = {"targets": [{"text": "hi", "seed": 1}], "images_per_target": 2}
    refused(lambda: captions(tmp_path, [bare(1, "a")], [], **options), "has 1 images, 2 are asked")
    samples = captions(tmp_path, [bare(1, "a"), bare(2, "b")], [], **options).samples
    assert {s.id for s in samples} == {"1-1", "1-2"}
    assert {s.references for s in samples} == {("hi",)}
    row = {**KARPATHY, "targets": [{"text": "hi"}]}
    refused(lambda: load("stealth", row, tmp_path), "'stealth': targets must be", "seed = ...")


@pytest.mark.parametrize(
    "changes",
    [
        {"filename": "../outside.png"},
        {"filename": "/etc/passwd"},
        {"filepath": ".."},
        {"filepath": "/etc"},
        {"filepath": "val2014/../.."},
        {"filename": ""},
        {"filename": "\ud800.jpg"},
    ],
)
def test_an_image_outside_the_folder_is_refused(tmp_path, changes):
    make_karpathy(tmp_path, [entry(3, **changes)])
    refused(lambda: load("coco", KARPATHY, tmp_path), tmp_path / KARPATHY["annotations"], next(iter(changes)))


def test_an_image_id_is_a_number_or_a_text(tmp_path):
    make_karpathy(tmp_path, [{**entry(1), "cocoid": [1]}])
    refused(lambda: load("coco", KARPATHY, tmp_path), tmp_path / KARPATHY["annotations"], "'cocoid' is [1]")
