"""Whole runs with images on eight samples of one mini dataset, and entries made of them."""

import shutil

import pytest
from click.testing import CliRunner

import bench
from bench.board.entry import Card, read_entry, write_entry
from bench.board.pack import pack
from bench.cli import main
from bench.records import load_run


@pytest.fixture(scope="package")
def data(tmp_path_factory):
    """Eight samples of each mini dataset, as files."""
    folder = tmp_path_factory.mktemp("data")
    ended = CliRunner().invoke(main, ["data", "export", "mini", str(folder / "mini"), "--size", "8"])
    assert ended.exit_code == 0, ended.output
    return folder / "mini"


@pytest.fixture(scope="package")
def original(data, tmp_path_factory):
    """A run of plain CLIP on all of one dataset."""
    options = {"attack": "pgd", "save_adversarial": True, "data_root": data, "jobs": 1, "progress": False}
    output = tmp_path_factory.mktemp("runs")
    found = bench.run(encoder="clip", task="zeroshot", dataset="webdataset:wds_mini-sketch", output=output, **options)
    assert found.runs[0].header.partial is None
    return found.runs[0].directory


@pytest.fixture
def run(original, tmp_path):
    """A copy to tamper with."""
    return load_run(shutil.copytree(original, tmp_path / "run"))


@pytest.fixture
def entry(run, tmp_path):
    """The path of an honest entry of that run."""
    path = tmp_path / "entries" / "clip.json"
    path.parent.mkdir()
    write_entry(path, pack([run], Card(submitter="us"), path.parent))
    assert read_entry(path).entry.claims[0].kind == "images"
    return path
