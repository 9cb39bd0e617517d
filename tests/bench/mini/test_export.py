"""The mini datasets in the official formats: the same samples, the same fingerprints."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.config import load_suite
from bench.data.images import fingerprint, open_image
from bench.data.readers import load
from bench.mini import export
from bench.mini.data import NAMES, build
from bench.mini.export import MARKER, STAGE, export_mini
from tests.bench.data.small import refused, write

SIZE = 20
ROWS = load_suite("mini").datasets


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    directory = tmp_path_factory.mktemp("mini")
    export_mini(directory, SIZE, progress=False)
    return directory


def _of_target(sample):
    return sample.target and (sample.target.text, sample.target.keywords)


@pytest.mark.parametrize("name", NAMES)
def test_an_exported_data_set_reads_back_equal(exported, name):
    built, read = build(name, SIZE), load(name, ROWS[name], exported)
    bare = [replace(dataset, samples=()) for dataset in (built, read)]
    assert bare[0] == bare[1]
    texts = [
        [(s.id, s.prompt, s.references, s.group, s.captions, _of_target(s)) for s in dataset.samples]
        for dataset in (built, read)
    ]
    assert texts[0] == texts[1]
    for a, b in zip(built.samples, read.samples, strict=True):
        assert np.array_equal(np.asarray(open_image(a.image)), np.asarray(open_image(b.image)))
    assert fingerprint(built) == fingerprint(read)


def test_the_export_holds_the_official_fields(exported):
    caption = json.loads((exported / "mini-caption/dataset_karpathy.json").read_text())["images"][0]
    assert caption.keys() == {"filepath", "sentids", "filename", "imgid", "split", "sentences", "cocoid"}
    assert caption["sentences"][0].keys() == {"tokens", "raw", "imgid", "sentid"}
    coco = json.loads((exported / "mini-caption/captions_val2014.json").read_text())
    of_first = [a["caption"] for a in coco["annotations"] if a["image_id"] == caption["cocoid"]]
    assert of_first == [s["raw"] for s in caption["sentences"]]
    assert len({a["id"] for a in coco["annotations"]}) == len(coco["annotations"]) == 5 * SIZE
    questions = json.loads((exported / ROWS["mini-vqa"]["questions"]).read_text())
    assert questions.keys() == {"info", "license", "data_type", "data_subtype", "task_type", "questions"}
    assert questions["questions"][0].keys() == {"image_id", "question", "question_id"}
    annotation = json.loads((exported / ROWS["mini-vqa"]["annotations"]).read_text())["annotations"][0]
    assert [a["answer_id"] for a in annotation["answers"]] == list(range(1, 11))
    assert {a["answer_confidence"] for a in annotation["answers"]} == {"yes"}
    assert annotation["multiple_choice_answer"] in {a["answer"] for a in annotation["answers"]}
    assert {"question_type", "answer_type", "image_id", "question_id"} < annotation.keys()


def test_shards_hold_so_many_images_at_most(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "IMAGES_PER_SHARD", 3)
    export_mini(tmp_path, 7, progress=False)
    base = tmp_path / "wds_mini-shape" / "test"
    assert (base / "nshards.txt").read_text() == "3\n"
    assert sorted(p.name for p in base.glob("*.tar")) == ["0.tar", "1.tar", "2.tar"]
    assert fingerprint(load("mini-shape", ROWS["mini-shape"], tmp_path)) == fingerprint(build("mini-shape", 7))


def test_an_export_is_the_same_bytes_again_and_replaces_an_earlier_one(tmp_path):
    def content(directory):
        return {p.relative_to(directory): p.read_bytes() for p in directory.rglob("*") if p.is_file()}

    export_mini(tmp_path / "a", 2, progress=False)
    paths = export_mini(tmp_path / "b", 3, progress=False)
    assert paths[0] == tmp_path / "b" / "mini-caption"
    assert all(path.is_dir() for path in paths)
    export_mini(tmp_path / "b", 2, progress=False)
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_an_export_that_was_cut_short_does_not_look_whole_and_can_be_given_again(tmp_path, monkeypatch):
    real = export._WRITERS["vqa"]

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setitem(export._WRITERS, "vqa", stop)
    with pytest.raises(KeyboardInterrupt):
        export_mini(tmp_path, 2, progress=False)
    assert [p.name for p in tmp_path.iterdir()] == [STAGE]
    refused(lambda: load("mini-caption", ROWS["mini-caption"], tmp_path), "dataset_karpathy.json")
    monkeypatch.setitem(export._WRITERS, "vqa", real)
    export_mini(tmp_path, 2, progress=False)
    assert (tmp_path / MARKER).is_file()
    assert not (tmp_path / STAGE).exists()


def test_an_export_cut_short_while_moving_can_be_given_again(tmp_path, monkeypatch):
    export_mini(tmp_path, 2, progress=False)
    rename, moved = Path.rename, []

    def fail(self, target):
        moved.append(target)
        if len(moved) == 3:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    refused(lambda: export_mini(tmp_path, 3, progress=False), tmp_path, "No space left", "make room")
    assert not (tmp_path / MARKER).exists()
    monkeypatch.setattr(Path, "rename", rename)
    export_mini(tmp_path, 3, progress=False)
    assert len(load("mini-vqa", ROWS["mini-vqa"], tmp_path).samples) == 3


@pytest.mark.parametrize("thing", ["thesis.tex", "mini-vqa/notes.txt"])
def test_an_export_never_touches_other_things(tmp_path, thing):
    mine = write(tmp_path / thing, b"mine")
    refused(lambda: export_mini(tmp_path, 2, progress=False), tmp_path, thing.split("/")[0], "empty folder")
    assert mine.read_bytes() == b"mine"
    refused(lambda: export_mini(mine, 2, progress=False), mine, "choose a new folder")
    refused(lambda: export_mini(tmp_path / "new", 0, progress=False), "at least 1")
