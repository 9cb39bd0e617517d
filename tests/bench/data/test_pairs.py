"""Pairs of images and targets: by name, by a list, in turn."""

import json

import pytest
from PIL import Image

from bench.data.readers import load
from bench.data.specs import parse
from bench.errors import UsageError

SETTINGS = {"format": "pairs", "images": "images", "targets": "targets", "prompt": "describe"}


@pytest.fixture
def folder(tmp_path):
    def make(images, targets):
        for name, names in (("images", images), ("targets", targets)):
            (tmp_path / name).mkdir()
            for one in names:
                Image.new("RGB", (4, 4)).save(tmp_path / name / one)
        return tmp_path

    return make


def read(root, **settings):
    found = load("pairs", SETTINGS | settings, root)
    return {sample.id: sample.target.image.name for sample in found.samples}


def test_images_have_the_targets_of_their_names(folder):
    root = folder(["2.png", "10.png", "1.png"], ["1.jpg", "2.png", "10.png", "7.png"])
    assert read(root) == {"1": "1.jpg", "2": "2.png", "10": "10.png"}
    assert list(read(root)) == ["1", "2", "10"], "numbers in their order"


def test_a_set_of_targets_is_dealt_out_in_turn(folder):
    root = folder(["1.png", "2.png", "3.png"], ["b.png", "a.png"])
    assert read(root) == {"1": "a.png", "2": "b.png", "3": "a.png"}


def test_a_list_says_which_belong_together(folder):
    root = folder(["1.png", "2.png"], ["1.png", "2.png"])
    (root / "pairs.csv").write_text("ImageId,URL,TargetId\n2,x,1.png\n1.png,y,2\n")
    assert read(root, pairs="pairs.csv") == {"2": "1.png", "1": "2.png"}


def test_a_folder_is_a_dataset_with_what_is_said_of_its_targets(folder):
    root = folder(["1.png", "2.png"], ["1.jpg", "2.jpg"])
    (root / "keywords.json").write_text(json.dumps([{"image": "1.jpg", "keywords": ["red", "bar"]}]))
    (root / "captions.json").write_text(json.dumps([{"image": "2", "caption": ["a ring", "another"]}]))
    place = parse(f"pairs:{root}", None, {"prompt": "describe"})
    assert all(place.suits(task) for task in ("keywords", "target-text", "target-caption"))
    one, other = load(place.name, place.row, place.root).samples
    assert (one.target.keywords, one.target.text) == (("red", "bar"), "")
    assert (other.target.keywords, other.target.text) == ((), "a ring")


@pytest.mark.parametrize(
    ("files", "settings", "words"),
    [
        ({}, {}, "image '3' has no target image of its name; add it, or say which with"),
        ({"p.csv": "ImageId,Other\n1,2\n"}, {"pairs": "p.csv"}, "line 2: the columns ImageId and TargetId are needed"),
        ({"p.csv": "ImageId,TargetId\n1,9\n"}, {"pairs": "p.csv"}, "line 2: there is no image '9'"),
        ({"p.csv": "ImageId,TargetId\n1,1\n1,2\n"}, {"pairs": "p.csv"}, "line 3: image '1' comes twice"),
        ({"p.csv": "ImageId,TargetId\n"}, {"pairs": "p.csv"}, "lists no pair"),
        ({"k.json": "[{"}, {"keywords": "k.json"}, "is no JSON"),
        ({"other.json": "[]"}, {"keywords": "k.json"}, "^no keywords of the targets at"),
        ({"k.json": "[3]"}, {"keywords": "k.json"}, 'entry 0: {"image": NAME, "keywords": TEXTS} is needed'),
        ({"k.json": '{"a": 1}'}, {"keywords": "k.json"}, "entry 0"),
        ({}, {"targets": "nowhere"}, "target images"),
    ],
)
def test_what_is_wrong_is_named(folder, files, settings, words):
    root = folder(["1.png", "3.png"], ["1.png", "2.png", *(["3.png"] if files else [])])
    for name, text in files.items():
        (root / name).write_text(text)
    with pytest.raises(UsageError, match=words.replace("{", r"\{").replace("}", r"\}")):
        read(root, **settings)
