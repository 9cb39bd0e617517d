"""Pages over a folder, and pictures of a run, that somebody else has prepared."""

import os

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import save_file

from bench.board import site as board
from bench.cli import main
from bench.config.facts import SUITE_FACTS
from bench.records import RecordsError
from bench.records.images import path_of
from bench.report import pages as report
from tests.bench.board.site import make_entries
from tests.bench.runs import make_run


def _report(folder):
    run = make_run(folder / "run", {0: [100.0], 4: [0.0]})
    return lambda: report.write_report([run], folder / "site", facts=SUITE_FACTS, progress=False)


def _board(folder):
    entries = make_entries(folder)
    return lambda: board.write_board(entries, folder / "site")


PLACES = [
    *((_report, name) for name in (report.MARKER, "index.html", "images", "runs")),
    *((_board, name) for name in (board.MARKER, "index.html", *board.PARTS)),
]


@pytest.mark.parametrize(("make", "name"), PLACES)
def test_no_page_is_written_through_a_link(make, name, tmp_path):
    """A folder of pages is written over; a link in it must lead nobody to files elsewhere."""
    write = make(tmp_path)
    place = write().parent / name
    precious = tmp_path / "precious"
    if place.is_dir():
        place.rename(precious)
        before = sorted(path.name for path in precious.iterdir())
    else:
        place.unlink(missing_ok=True)
        precious.write_text("precious")
    place.symlink_to(precious)
    with pytest.raises(RecordsError, match=f"{place} is a link"):
        write()
    assert precious.read_text() == "precious" if precious.is_file() else before == sorted(os.listdir(precious))


def _kept(folder):
    """A run with one saved adversarial image, which is still to be written, and its path."""
    run = make_run(folder / "run", {0: [100.0], 4: [0.0]}, n_samples=1)
    path = path_of(run.directory / "adversarial", "s0", 4.0)
    path.parent.mkdir(parents=True)
    clean = path_of(run.directory / "adversarial", "s0", 0.0)
    clean.parent.mkdir(parents=True)
    save_file({"image": np.zeros((3, 8, 8), np.float32)}, clean)
    return run, path


def _report_of(run, folder):
    ended = CliRunner().invoke(main, ["report", str(run.directory), "-o", str(folder / "report"), "--quiet"])
    assert ended.exit_code == 0, ended.output
    return (folder / "report" / "index.html").read_text()


def test_a_pipe_in_the_place_of_an_image_is_not_waited_for(tmp_path):
    run, path = _kept(tmp_path)
    os.mkfifo(path)
    assert f"{path} is no file; remove it" in _report_of(run, tmp_path)


@pytest.mark.parametrize("shape", [(3, 0, 0), (3, 8, 0), (1, 8, 8), (8, 8)])
def test_a_tensor_that_is_no_image_is_named(tmp_path, shape):
    run, path = _kept(tmp_path)
    save_file({"image": np.zeros(shape, np.float32)}, path)
    assert f"{path} holds a tensor of shape {shape}" in _report_of(run, tmp_path)
