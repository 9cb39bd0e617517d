"""A real run with saved images, and a copy of it to tamper with."""

import shutil

import pytest

import bench
from bench.records import load_run


@pytest.fixture(scope="package")
def original(tmp_path_factory):
    """Plain CLIP on 16 samples of one dataset, attacked at two radii."""
    result = bench.run(
        encoder="clip",
        task="zeroshot",
        dataset="mini-sketch",
        limit=16,
        attack="pgd",
        save_adversarial=True,
        output=tmp_path_factory.mktemp("runs"),
        jobs=1,
        progress=False,
    )
    return result.runs[0].directory


@pytest.fixture
def run(original, tmp_path):
    """A copy to tamper with."""
    return load_run(shutil.copytree(original, tmp_path / "run"))
