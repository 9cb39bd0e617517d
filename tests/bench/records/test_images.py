"""Where saved images lie, and that reading one never follows a link, never needs torch and always names the file."""

import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from bench.records import RecordsError
from bench.records.images import SEAL, TENSOR, WAITING, digest, path_of, read_image, saved_paths, worst_path

IMAGE = np.linspace(0, 1, 48, dtype=np.float32).reshape(3, 4, 4)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run" / "adversarial"


def save(path, image=IMAGE, **metadata):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({TENSOR: image}, path, metadata=metadata or {SEAL: digest(image)})
    return path


@pytest.mark.parametrize("radius", [4.0, 0.5, 0.1 + 0.2, 1.2345678, 1e-7, 0.0])
def test_an_image_is_found_again_by_sample_and_radius(folder, radius):
    path = save(path_of(folder, "a/b", radius))
    assert list(saved_paths(folder)) == [(radius, path)]
    found = read_image(path)
    assert np.array_equal(found.pixels, IMAGE)
    assert found.seal == found.digest == digest(IMAGE)


def test_radii_that_look_alike_have_folders_of_their_own(folder):
    assert path_of(folder, "s0", 0.1234567) != path_of(folder, "s0", 0.1234568)


def test_the_digest_is_that_of_the_bytes_in_memory_order():
    assert digest(IMAGE[::-1]) != digest(IMAGE)
    assert digest(IMAGE[::-1]) == digest(np.ascontiguousarray(IMAGE[::-1]))
    assert digest(np.asfortranarray(IMAGE)) == digest(IMAGE)


def test_the_worst_image_is_that_of_the_largest_radius_within(folder):
    two, four = (save(path_of(folder, "s0", radius)) for radius in (2.0, 4.0))
    save(path_of(folder, "s0", 0.0))  # the clean one
    save(folder / WAITING / "s0.safetensors")
    save(path_of(folder, "s1", 3.0))
    found = [worst_path(folder, "s0", radius) for radius in (1.0, 2.0, 3.9, 4.0, 9.0)]
    assert found == [None, two, two, four, four]
    assert worst_path(folder.parent / "none", "s0", 4.0) is None


def test_another_image_under_the_same_seal_shows(folder):
    found = read_image(save(path_of(folder, "s0", 4.0), IMAGE, **{SEAL: digest(1 - IMAGE)}))
    assert found.seal != found.digest
    assert read_image(save(path_of(folder, "s0", 4.0), IMAGE, other="x")).seal is None


@pytest.mark.parametrize("place", ["adversarial", "adversarial/4", "adversarial/4/s0.safetensors"])
def test_no_link_is_followed_to_an_image(folder, tmp_path, place):
    save(path_of(folder, "s0", 4.0))
    (folder.parent / place).rename(tmp_path / "moved")
    (folder.parent / place).symlink_to(tmp_path / "moved")
    with pytest.raises(RecordsError, match=rf"s0\.safetensors is no image.*{place} is a link"):
        read_image(path_of(folder, "s0", 4.0))


@pytest.mark.parametrize("content", [b"", b"x" * 7, b"\xff" * 100, b"\x08\0\0\0\0\0\0\0{}      ", None])
def test_what_is_no_image_is_named(folder, content):
    path = path_of(folder, "s0", 4.0)
    path.parent.mkdir(parents=True)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecordsError, match=r"s0\.safetensors is no image that a run saved"):
        read_image(path)


def test_images_are_read_without_torch():
    code = "import sys, bench.records.images; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
