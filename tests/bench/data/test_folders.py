"""A folder of images per class."""

import os

import pytest

from bench.data.folders import imagefolder
from tests.bench.data.small import picture, refused


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
        ("n01/deep/a.JPEG", 0, ("n01",)),
        ("n01/z.png", 0, ("n01",)),
        ("n02/b.jpg", 1, ("n02",)),
    ]
    assert dataset.chance == 50
    assert dataset.templates == ("a photo of a {c}.",)


@pytest.mark.parametrize("content", ["great tit\nwren\n", "n02\twren\nn01\tgreat tit\nn03\tcrow\n"])
def test_class_names_come_from_a_file_in_order_or_by_folder(classes, tmp_path, content):
    (classes / "classnames.txt").write_text(content)
    assert imagefolder("birds", tmp_path, folder="birds").classnames == ("great tit", "wren")
    (classes / "classnames.txt").rename(tmp_path / "names.txt")
    assert imagefolder("birds", tmp_path, folder="birds", classnames="names.txt").classnames == ("great tit", "wren")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("one\n", ["2 classes' folders", "1 class names", "same set"]),
        ("n01\ttit\nn03\twren\n", ["no line for the folder 'n02'", "add it"]),
        ("", ["is empty"]),
        ("n01\ttit\nwren\n", ["line 2 is 'wren'", "folder<TAB>name"]),
        ("n01\ttit\nn02\n", ["line 2 is 'n02'", "folder<TAB>name"]),
        ("n01\ttit\nn02\twren\nn01\tcrow\n", ["line 3 calls the folder 'n01' 'crow', an earlier one 'tit'"]),
    ],
)
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


def sorted_in(base, names):
    for name in names:
        picture(base / name / "1.png")
    return base


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("count", [2, 12])
def test_folders_called_by_numbers_stand_in_the_order_of_the_numbers(tmp_path, first, count):
    base = sorted_in(tmp_path / "n", [str(k) for k in range(first, first + count)])
    (base / "classnames.txt").write_text("".join(f"class {k}\n" for k in range(count)))
    dataset = imagefolder("n", tmp_path, folder="n")
    assert {sample.id: sample.references[0] for sample in dataset.samples} == {
        f"{k + first}/1.png": f"class {k}" for k in range(count)
    }


def test_imagenet_in_folders_called_by_numbers(tmp_path):
    sorted_in(tmp_path / "n", [str(k) for k in range(1000)])
    dataset = imagefolder("n", tmp_path, folder="n", classnames="imagenet")
    named = {sample.id: sample.references[0] for sample in dataset.samples}
    assert (named["3/1.png"], named["100/1.png"]) == ("tiger shark", "black swan")


@pytest.mark.parametrize("folders", [["1", "2", "4"], ["2", "3", "4"], ["0", "00", "1"]])
def test_numbers_with_gaps_do_not_say_whose_the_names_are(tmp_path, folders):
    base = sorted_in(tmp_path / "n", folders)
    (base / "classnames.txt").write_text("a\nb\nc\n")
    refused(lambda: imagefolder("n", tmp_path, folder="n"), base / "classnames.txt", "0 to 2 or 1 to 3", "<TAB>")
    (base / "classnames.txt").write_text("".join(f"{each}\tname {each}\n" for each in folders))
    assert set(imagefolder("n", tmp_path, folder="n").classnames) == {f"name {each}" for each in folders}


def test_names_in_another_order_than_the_folders_are_refused(tmp_path):
    base = sorted_in(tmp_path / "pets", ["cat", "hot_dog"])
    (base / "classnames.txt").write_text("Hot dog\ncat\n")
    refused(lambda: imagefolder("pets", tmp_path, folder="pets"), "call the folder 'cat' 'Hot dog'", "folder<TAB>name")
    (base / "classnames.txt").write_text("tabby\nHot dog\n")
    assert imagefolder("pets", tmp_path, folder="pets").classnames == ("tabby", "Hot dog")


def test_imagenets_names_are_for_its_own_folders(tmp_path):
    base = sorted_in(tmp_path / "n", [f"bird {k:03d}" for k in range(1000)])
    refused(lambda: imagefolder("n", tmp_path, folder="n", classnames="imagenet"), base, "WordNet id", "<TAB>")


def test_what_archives_leave_is_no_class_and_classes_without_images_are_named(classes, tmp_path):
    picture(classes / "__MACOSX" / "a.png")
    picture(classes / "n01" / "__MACOSX" / "b.png")
    picture(classes / "n02" / ".thumbs" / "c.png")
    (classes / "n03").mkdir()
    picture(classes / "loose.png")
    (classes / "n01" / "d.HEIC").write_bytes(b"?")
    dataset = imagefolder("birds", tmp_path, folder="birds")
    assert dataset.classnames == ("n01", "n02", "n03")
    assert [sample.id for sample in dataset.samples] == ["n01/deep/a.JPEG", "n01/z.png", "n02/b.jpg"]
    notes = " | ".join(dataset.notes)
    for words in ("'n03' has no images", "loose.png, are in no class", "d.HEIC, are of a type that is not read"):
        assert words in notes


def test_a_name_that_is_no_text_gets_an_id_that_is(classes, tmp_path):
    picture(classes / "n01" / os.fsdecode(b"caf\xe9.png"))
    ids = [sample.id for sample in imagefolder("birds", tmp_path, folder="birds").samples]
    assert r"n01/caf\xe9.png" in ids
    "".join(ids).encode()
