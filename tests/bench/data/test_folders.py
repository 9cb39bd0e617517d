"""A folder of images a class."""

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
