"""Classification sets in tar shards."""

from pathlib import Path

import pytest

from bench.data.images import open_image
from bench.data.readers import load
from bench.data.shards import WEBDATASET
from tests.bench.data.small import HTML, LFS, WDS, make_wds, noise, png, refused, tar, write


def test_webdataset_reads_all_shards_in_order(tmp_path):
    base = make_wds(tmp_path, classnames="cat\r\nhot dog \r\n\r\n", templates="\ufeffa {c}.\nthe {c}.", nshards="2")
    later = [
        ("s0000002.cls", b"0\n"),
        ("s0000002.jpg", png(kind="jpeg")),
        ("s0000001.webp", png(kind="webp")),
        ("s0000001.cls", b"1"),
        ("s0000001.json", b"{}"),
        (".hidden", b""),
    ]
    tar(base / "test" / "1.tar", later)
    dataset = load("toy", WDS, tmp_path)
    assert [(s.id, s.references, s.group, s.prompt) for s in dataset.samples] == [
        ("s0000000", ("hot dog",), "s0000000", ""),
        ("s0000002", ("cat",), "s0000002", ""),
        ("s0000001", ("hot dog",), "s0000001", ""),
    ]
    assert dataset.classnames == ("cat", "hot dog")
    assert dataset.templates == ("a {c}.", "the {c}.")
    assert dataset.chance == 50
    assert all(open_image(s.image).size == (4, 3) for s in dataset.samples)


IMAGE = ("s0000000.png", png())


@pytest.mark.parametrize(
    ("changes", "file", "words"),
    [
        (
            {"members": [IMAGE, ("s0000000.cls", b"2")]},
            "test/0.tar",
            ["key s0000000", "label 2 is out of range", "classnames.txt has 2 classes", "same set"],
        ),
        ({"members": [IMAGE, ("s0000000.cls", b"-1")]}, "test/0.tar", ["label -1 is out of range", "same set"]),
        ({"members": [IMAGE, ("s0000000.cls", b"\xff cat")]}, "test/0.tar", ["not a number", "download it again"]),
        ({"members": [IMAGE]}, "test/0.tar", ["key s0000000", "no label (.cls)", "download it again"]),
        ({"members": [("s0000000.cls", b"0")]}, "test/0.tar", ["key s0000000", "no image (.webp", "download it again"]),
        ({"members": [IMAGE, ("s0000000.cls", b"0")] * 2}, "test/0.tar", ["key s0000000 comes twice", "again"]),
        ({"members": [(".hidden", b"")]}, "test", ["no images", "download them again"]),
        ({"classnames": "cat\n\ndog\n"}, "classnames.txt", ["line 2 is blank", "restore or remove"]),
        ({"classnames": " \n"}, "classnames.txt", ["is empty", "download it again"]),
        (
            {"templates": "a {c}.\na photo of {}.\n"},
            "zeroshot_classification_templates.txt",
            ["line 2", "'a photo of {}.'", "{c}", "add it"],
        ),
        ({"nshards": "two"}, "test/nshards.txt", ["'two'", "write their number"]),
        ({"nshards": "0"}, "test/nshards.txt", ["'0'", "write their number"]),
        ({"nshards": "3"}, "test/1.tar", ["2 of 3 are missing", "download"]),
    ],
    ids=[
        "class-high",
        "class-negative",
        "class-text",
        "no-label",
        "no-image",
        "key-twice",
        "no-images",
        "name-blank",
        "no-names",
        "template",
        "nshards",
        "nshards-0",
        "no-shard",
    ],
)
def test_contradictions_in_shards_are_named(tmp_path, changes, file, words):
    base = make_wds(tmp_path, **changes)
    refused(lambda: load("toy", WDS, tmp_path), base / file, *words)


def test_a_shard_that_is_not_counted_is_named(tmp_path):
    base = make_wds(tmp_path)
    (base / "test" / "0.tar").rename(base / "test" / "1.tar")
    make_wds(tmp_path)
    refused(lambda: load("toy", WDS, tmp_path), base / "test/nshards.txt", "there are 1 shards", base / "test/1.tar")


def test_of_two_images_for_one_label_none_is_chosen(tmp_path):
    base = make_wds(tmp_path, [("s1.png", png()), ("s1.jpg", noise("jpeg")), ("s1.cls", b"1")])
    refused(lambda: load("toy", WDS, tmp_path), base / "test/0.tar", "key s1", "several images (.png and .jpg)")


@pytest.mark.parametrize("file", ["classnames.txt", "zeroshot_classification_templates.txt", "test/nshards.txt"])
def test_a_missing_file_beside_the_shards_is_named(tmp_path, file):
    base = make_wds(tmp_path)
    (base / file).unlink()
    refused(lambda: load("toy", WDS, tmp_path), base / file, f"download {Path(file).name}")


def test_extensions_in_shards_may_be_in_capitals(tmp_path):
    make_wds(
        tmp_path, [("s0000000.JPG", noise("jpeg")), ("s0000000.CLS", b"1"), ("a/s1.PnG", png()), ("a/s1.cls", b"0")]
    )
    dataset = load("toy", WDS, tmp_path)
    assert [s.label for s in dataset.samples] == [1, 0]
    assert all(open_image(s.image).mode == "RGB" for s in dataset.samples)


def test_a_missing_webdataset_folder_is_named(tmp_path):
    refused(lambda: load("toy", WDS, tmp_path), tmp_path / "wds_toy", "'toy'", "--data-root")


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: LFS,
        lambda content: HTML * 50,
        lambda content: content[:700],
        lambda content: content[:1024],
        lambda content: content[:1800],
        lambda content: content[:2048],
        lambda content: content[:512] + b"\x01" * 512 + content[1024:1536],
    ],
    ids=["empty", "lfs", "html", "cut-image", "cut-at-member", "cut-header", "cut-before-end", "junk"],
)
def test_a_damaged_shard_is_named(tmp_path, damage):
    shard = make_wds(tmp_path) / "test" / "0.tar"
    shard.write_bytes(damage(shard.read_bytes()))
    refused(lambda: load("toy", WDS, tmp_path), shard, "not a whole tar file", "download it again")


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda whole: whole[: len(whole) // 2], "cannot be decoded"),
        (lambda whole: b"", "empty (0 bytes)"),
        (lambda whole: HTML, "not an image"),
    ],
    ids=["cut", "empty", "html"],
)
def test_a_bad_image_in_a_shard_is_named_when_it_is_opened(tmp_path, damage, word):
    base = make_wds(tmp_path, [("s0000000.jpg", damage(noise("jpeg"))), ("s0000000.cls", b"1")])
    sample = load("toy", WDS, tmp_path).samples[0]
    refused(lambda: open_image(sample.image), f"{base / 'test' / '0.tar'}:s0000000.jpg", word, "download it again")


@pytest.mark.parametrize("kind", ["retrieval", "multilabel"])
def test_other_types_of_webdataset_are_refused(tmp_path, kind):
    path = write(make_wds(tmp_path) / "dataset_type.txt", f"{kind}\n".encode())
    refused(lambda: load("toy", WDS, tmp_path), path, kind, "only classification")


@pytest.mark.parametrize("later", [[], [("s1.png", png()), ("s1.cls", b"0")]])
def test_keys_with_dots_are_counted_and_named(tmp_path, later):
    names = [f"img.{k:03d}.{kind}" for k in range(3) for kind in ("png", "cls")]
    base = make_wds(tmp_path, [*[(name, png() if name.endswith("png") else b"1") for name in names], *later])
    first = f"{base / 'test' / '0.tar'}:img.000"
    refused(lambda: load("toy", WDS, tmp_path), "3 samples have a key with a dot", first, "rename")


def test_a_sample_whose_key_with_a_dot_begins_like_anothers_is_not_lost(tmp_path):
    make_wds(tmp_path, [("a.png", png()), ("a.cls", b"1"), ("a.1.png", png()), ("a.1.cls", b"0")])
    refused(lambda: load("toy", WDS, tmp_path), "1 samples have a key with a dot", "a.1")


def test_other_files_of_a_sample_may_have_endings_with_dots(tmp_path):
    make_wds(tmp_path, [("a.png", png()), ("a.seg.png", png()), ("a.cls", b"1"), ("a.meta.json", b"{}")])
    assert [sample.id for sample in load("toy", WDS, tmp_path).samples] == ["a"]


@pytest.mark.parametrize("name", ["../s0.png", "/s0.png", "a/../../s0.png"])
def test_names_that_leave_the_shard_are_refused(tmp_path, name):
    base = make_wds(tmp_path, [(name, png()), (name.replace("png", "cls"), b"1")])
    refused(lambda: load("toy", WDS, tmp_path), base / "test" / "0.tar", repr(name))


@pytest.mark.parametrize("count", ["9" * 12, "9" * 5000, "٣"])
def test_a_number_of_shards_that_cannot_be_is_refused(tmp_path, count):
    base = make_wds(tmp_path, nshards=count)
    refused(lambda: load("toy", WDS, tmp_path), base / "test" / "nshards.txt", "write their number")
    assert [one.place for one in WEBDATASET.files(WDS, tmp_path)][-1] == "wds_toy/test/0.tar"


@pytest.mark.parametrize("label", [b"1_0", "٣".encode(), b"9" * 5000, b"1.0"])
def test_a_label_is_written_in_digits(tmp_path, label):
    make_wds(tmp_path, [("s0.png", png()), ("s0.cls", label)], classnames="c\n" * 20)
    refused(lambda: load("toy", WDS, tmp_path), "0.tar, key s0", "label")
