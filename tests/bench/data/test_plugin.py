"""A dataset format of an installed plugin: by place, in a TOML row, and in `bench data check`."""

import json
from pathlib import Path

import pytest

from bench import registry
from bench.data import readers
from bench.mini.data import build
from tests.bench.data.small import refused
from tests.commands import bench


@pytest.fixture
def folder(tmp_path) -> Path:
    samples = build("mini-shape", 6).samples
    (tmp_path / "shapes").mkdir()
    for sample in samples:
        sample.image.save(tmp_path / "shapes" / f"{sample.id}.png")
    lines = [f"{sample.id}.png,{sample.references[0]}\n" for sample in samples]
    (tmp_path / "shapes" / "labels.csv").write_text("".join(lines))
    (tmp_path / "mine.toml").write_text('format = "labelled"\nfolder = "shapes"\n')
    return tmp_path


def test_a_format_of_a_plugin_is_checked_and_run(plugin, folder):
    def said(*words):
        ended = bench(*words, path=[plugin], folder=folder)
        assert ended.poll() == 0, ended.stderr
        return ended.stdout

    assert "shapes: ready, 6 samples" in said("data", "check", "--data-root", ".", "--dataset", "labelled:shapes")
    words = "run --encoder clip --task zeroshot --attack none --output runs --json --quiet".split()
    for place in ("labelled:shapes", "mine.toml"):
        rows = json.loads(said(*words, "--dataset", place))
        assert [(row["dataset"], row["n"]) for row in rows] == [(Path(place).stem.removeprefix("labelled:"), 6)]


def test_a_plugin_that_is_no_reader_is_named(monkeypatch):
    monkeypatch.setattr(registry, "names", lambda group: ["odd"])
    monkeypatch.setattr(registry, "resolve", lambda group, name: print)
    refused(lambda: readers.reader("odd"), "'odd'", "not a bench.data.reader.Reader")
