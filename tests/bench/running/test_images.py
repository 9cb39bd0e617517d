"""Adversarial images on disk: exact, and in step with the records whenever the run dies."""

import errno
import os

import numpy as np
import pytest
import torch
from PIL import Image

import bench
from bench.errors import UsageError
from bench.records import RecordsError
from bench.running.images import WAITING, ImageStore, as_png
from tasks.base import Sample

SAMPLE = Sample("7", Image.new("RGB", (4, 4)), "", (), "7")
CLEAN = torch.zeros(1, 3, 4, 4)
FIRST, SECOND = torch.full((3, 4, 4), 0.123456), torch.full((3, 4, 4), 0.654321)


@pytest.fixture
def store(tmp_path):
    store = ImageStore(tmp_path / "adversarial")
    store.put("7", "first", 4.0, FIRST)
    store.settle([("7", "first", 4.0)])
    return store


def test_an_image_comes_back_exactly(store):
    assert torch.equal(store.worst([SAMPLE], CLEAN, 4.0)[0], FIRST)
    assert torch.equal(store.worst([SAMPLE], CLEAN, 2.0), CLEAN)


def test_an_image_waits_for_its_record(store):
    store.put("7", "second", 4.0, SECOND, png=True)
    assert torch.equal(store.worst([SAMPLE], CLEAN, 4.0)[0], FIRST)
    store.settle([("7", "second", 4.0)])
    assert torch.equal(store.worst([SAMPLE], CLEAN, 4.0)[0], SECOND)
    png = torch.from_numpy(np.array(Image.open(store.path("7", 4.0).with_suffix(".png"))))
    assert torch.equal(png.permute(2, 0, 1).float() / 255, as_png(SECOND[None])[0])


def test_an_image_whose_record_was_never_written_is_discarded(store):
    """As after a kill between the two: the step is done again from the same start as before."""
    store.put("7", "second", 4.0, SECOND)
    again = ImageStore(store.directory)
    again.settle([("7", "first", 4.0)])
    assert torch.equal(again.worst([SAMPLE], CLEAN, 4.0)[0], FIRST)
    assert not (store.directory / WAITING).exists()


def test_an_image_whose_record_was_written_is_put_in_place_later(store):
    """As after a kill between record and image."""
    store.put("7", "second", 4.0, SECOND)
    again = ImageStore(store.directory)
    again.settle([("7", "first", 4.0), ("7", "second", 4.0)])
    assert torch.equal(again.worst([SAMPLE], CLEAN, 4.0)[0], SECOND)


@pytest.mark.parametrize(
    "sample_id", ["a/b", "../up", "", ".", "7", "007", "a b", "x" * 500, "é" * 150, "nul\0", "7.safetensors"]
)
def test_any_id_has_a_file_of_its_own(store, sample_id):
    """No image of another sample is ever found, and no file lies outside the folder."""
    other = Sample(sample_id, Image.new("RGB", (4, 4)), "", (), "g")
    store.put(sample_id, "first", 4.0, SECOND, png=True)
    store.settle([(sample_id, "first", 4.0)])
    assert torch.equal(store.worst([other], CLEAN, 4.0)[0], SECOND)
    assert torch.equal(store.worst([SAMPLE], CLEAN, 4.0)[0], SECOND if sample_id == "7" else FIRST)
    assert store.directory / "4" == store.path(sample_id, 4.0).resolve().parent


def test_a_full_disk_is_named_with_a_remedy(store, monkeypatch):
    """The image in place and the next attempt are none the worse."""

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("bench.running.images.os.fsync", full)
        with pytest.raises(RecordsError, match=r"cannot write .*No space left on device .*it resumes"):
            store.put("7", "second", 4.0, SECOND)
    again = ImageStore(store.directory)
    again.settle([("7", "first", 4.0)])
    again.put("7", "second", 4.0, SECOND)
    again.settle([("7", "second", 4.0)])
    assert torch.equal(again.worst([SAMPLE], CLEAN, 4.0)[0], SECOND)


def _put_in_place(store):
    store.put("7", "first", 4.0, FIRST, png=True)
    store.settle([("7", "first", 4.0)])


@pytest.mark.parametrize("place", ["adversarial", "adversarial/waiting", "adversarial/4"])
def test_no_link_in_a_run_is_written_through_or_emptied(tmp_path, place):
    """A planted link to a folder of the user's, which holds a folder called "waiting" too."""
    precious = tmp_path / "precious"
    (precious / WAITING).mkdir(parents=True)
    (precious / WAITING / "mine").write_text("mine")
    link = tmp_path / "run" / place
    link.parent.mkdir(parents=True)
    link.symlink_to(precious)
    store = ImageStore(tmp_path / "run" / "adversarial")
    with pytest.raises(RecordsError, match=f"{place} is a link to"):
        _put_in_place(store)
    assert [str(p.relative_to(precious)) for p in sorted(precious.rglob("*"))] == ["waiting", "waiting/mine"]
    if place != "adversarial/4":
        with pytest.raises(RecordsError, match=f"{place} is a link to"):
            store.settle([])
    assert (precious / WAITING / "mine").read_text() == "mine"


@pytest.mark.parametrize("suffix", [".safetensors", ".png"])
def test_a_link_in_the_place_of_an_image_is_not_written_through(store, tmp_path, suffix):
    waiting = store._waiting("7", "second", 4.0).with_suffix(suffix)
    waiting.parent.mkdir()
    waiting.symlink_to(tmp_path / "precious")
    with pytest.raises(RecordsError, match=f"{suffix} is a link to"):
        store.put("7", "second", 4.0, SECOND, png=True)
    assert not (tmp_path / "precious").exists()


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_no_run_is_written_through_a_link_in_the_output_folder(tmp_path, depth):
    """Of the suite, the task or the run; the output folder itself may be a link of the user's."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "output").symlink_to(tmp_path / "disk")
    (tmp_path / "precious").mkdir()
    asked = {"encoder": "clip", "task": "zeroshot", "dataset": "mini-shape", "limit": 2, "attack": "none"}
    asked |= {"output": tmp_path / "output", "jobs": 1, "progress": False}
    (run,) = bench.run(**asked).runs
    link = tmp_path.joinpath("output", *run.directory.relative_to(tmp_path / "output").parts[:depth])
    link.rename(tmp_path / "moved")
    link.symlink_to(tmp_path / "precious")
    with pytest.raises(UsageError, match=f"{link.name} is a link to"):
        bench.run(**asked)
    assert not list((tmp_path / "precious").iterdir())
