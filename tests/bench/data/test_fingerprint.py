"""The fingerprint of a dataset."""

from dataclasses import replace

import pytest
from PIL import Image

from bench.data.images import fingerprint, open_image
from tasks.base import Dataset, Sample


def toy() -> Dataset:
    samples = (
        Sample("a", Image.new("RGB", (2, 3), "red"), "p", ("r", "s"), "g"),
        Sample("b", Image.new("RGB", (2, 3), "blue"), "p", ("t",), "g"),
    )
    return Dataset("toy", samples, ("x", "y"), ("a {c}",), "!", 5, 50.0)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"classnames": ("y", "x")},
        {"templates": ("the {c}",)},
        {"prompt_suffix": "?"},
        {"max_new_tokens": 6},
        {"samples": toy().samples[:1]},
        {"samples": toy().samples[::-1]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_fingerprint_tells_data_sets_apart(change):
    assert fingerprint(replace(toy(), **change)) != fingerprint(toy())


@pytest.mark.parametrize(
    "change",
    [
        {"id": "c"},
        {"prompt": "q"},
        {"references": ("rs",)},
        {"group": "h"},
        {"image": Image.new("RGB", (3, 2), "red")},
        {"image": Image.new("RGB", (2, 3), (254, 0, 0))},
    ],
    ids=["id", "prompt", "references", "group", "size", "pixel"],
)
def test_the_fingerprint_tells_samples_apart(change):
    first, second = toy().samples
    assert fingerprint(replace(toy(), samples=(replace(first, **change), second))) != fingerprint(toy())


def test_the_fingerprint_is_stable_and_takes_opened_images():
    dataset = toy()
    images = [open_image(s.image) for s in dataset.samples]
    assert fingerprint(dataset) == fingerprint(toy()) == fingerprint(dataset, images)
    assert fingerprint(dataset, images[::-1]) != fingerprint(dataset)
    with pytest.raises(ValueError, match="zip"):
        fingerprint(dataset, images[:1])
