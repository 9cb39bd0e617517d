"""Images for an endpoint, and a run on one, in milliseconds: mini questions, no model on this side."""

import numpy as np
import pytest
from PIL import Image

import bench
from bench.config import Request, resolve
from bench.running.load import load_task
from tests.bench.models.victims.endpoint.server import serving

COUNT = 4


@pytest.fixture(autouse=True)
def _no_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture(scope="session")
def samples():
    (config,) = resolve(Request.of(encoder="clip", task="vqa", dataset="mini-vqa", limit=COUNT, attack="none"))
    return load_task(config).dataset.samples


@pytest.fixture(scope="session")
def folders(tmp_path_factory, samples):
    """Grey images of one shade per sample, and the same a little brighter."""
    folder = tmp_path_factory.mktemp("brought")
    for name, more in (("clean", 0), ("images", 4)):
        (folder / name).mkdir()
        for k, sample in enumerate(samples):
            pixels = np.full((8, 8, 3), 40 * k + more, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{sample.id}.png")
    return folder


@pytest.fixture
def score(folders, tmp_path):
    """Scores the images on an endpoint; settings of the place and options of the run may be given."""

    def go(server, settings="backoff=0.01&attempts=3", **options):
        asked = {"task": "vqa", "dataset": "mini-vqa", "limit": COUNT, "eps": 4, "output": tmp_path / "out"}
        asked |= {"images": folders / "images", "clean": folders / "clean", "save_adversarial": True}
        asked |= {"vlm": f"{server.vlm}?{settings}", "progress": False, "concurrency": 1}
        (run,) = bench.run(**asked | options).runs
        return run

    return go


@pytest.fixture
def endpoint():
    return serving
