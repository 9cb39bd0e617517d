"""Evidence of attacks in an l2 ball: distances are lengths, in plain units."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import bench
from bench.records import load_run
from bench.verify import verify
from tests.bench.verify.tampering import edit, fields_of, image_of

RADIUS = 0.5


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    result = bench.run(
        encoder="clip",
        task="zeroshot",
        dataset="mini-sketch",
        limit=6,
        attack="pgd",
        norm="l2",
        eps=RADIUS,
        save_adversarial=True,
        output=tmp_path_factory.mktemp("runs"),
        jobs=1,
        progress=False,
    )
    return result.runs[0].directory


@pytest.fixture
def run(honest, tmp_path):
    return load_run(shutil.copytree(honest, tmp_path / "run"))


def test_an_honest_run_is_verified_and_its_distances_are_lengths(run):
    assert verify(run, progress=False).mismatches == ()
    path, record = image_of(run, RADIUS)
    clean = load_file(path.parents[1] / "0" / path.name)["image"]
    length = float((load_file(path)["image"] - clean).square().sum().sqrt())
    assert record.distance == pytest.approx(length, abs=1e-5)
    assert 0.9 * RADIUS < length <= RADIUS * (1 + 1e-5)


def test_a_distance_that_is_another_is_found(run):
    _, record = image_of(run, RADIUS)
    edit(run, record, distance=record.distance - 0.01)
    assert fields_of(run.directory) == {(record.sample_id, RADIUS, "distance")}


def test_an_image_beyond_the_radius_is_found_though_no_pixel_moved_by_it(run):
    path, record = image_of(run, RADIUS)
    clean = load_file(path.parents[1] / "0" / path.name)["image"]
    moved = (clean + 0.02 * torch.where(clean > 0.5, -1.0, 1.0)).contiguous()  # of length 0.02 sqrt(3 H W)
    save_file({"image": moved}, path)
    assert {(record.sample_id, RADIUS, field) for field in ("distance", "radius")} <= fields_of(run.directory)
