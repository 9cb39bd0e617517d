"""Images to train on, and a finished run on them."""

import pytest
from PIL import Image

from bench.mini import world
from tests.bench.train.commands import invoke, train_command


@pytest.fixture(name="images", scope="session")
def _images(tmp_path_factory):
    """Scenes in two folders, one of them unreadable."""
    root = tmp_path_factory.mktemp("images")
    for number, pixels in enumerate(world.render(world.draw_scenes("train", 48, start=10**6))):
        folder = root / ("circle" if number % 2 else "square")
        folder.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    (root / "circle" / "broken.png").write_bytes(b"no image")
    return root


@pytest.fixture(name="finished", scope="session")
def _finished(images, tmp_path_factory):
    """An uninterrupted run."""
    output = tmp_path_factory.mktemp("runs") / "fare8"
    done = invoke(train_command(images, output))
    assert done.exit_code == 0, done.output
    return output
