"""Whole runs on an endpoint that serves the miniature LLaVA, beside runs on the model itself; and ``kill -9``."""

import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import bench
from bench.config import Request, resolve
from bench.records import CLEAN, find_runs, load_run, load_runs
from bench.records.images import FOLDER, path_of, read_image, read_png
from bench.running.load import prepare
from bench.tables.blocks import stale
from bench.verify import verify
from benchmarks.endpoint import table
from tests.bench.models.victims.endpoint.conftest import COUNT
from tests.bench.models.victims.endpoint.server import llava
from tests.bench.running.kills import carry_out

ROOT = Path(__file__).parents[5]
LIMIT = 6


@pytest.fixture(scope="module")
def local():
    """The miniature LLaVA around plain CLIP, bound to its questions."""
    request = Request.of(encoder="clip", task="vqa", dataset="mini-vqa", limit=LIMIT, attack="none", device="cpu")
    (config,) = resolve(request)
    return prepare(config)


@pytest.fixture
def images(tmp_path, local):
    """Clean images, and each moved by up to 12/255 towards the next."""
    pixels = (local.images.pixels * 255).round()
    moved = pixels + (pixels.roll(-1, 0) - pixels).clamp(-12, 12)
    for name, batch in (("clean", pixels), ("images", moved)):
        (tmp_path / name).mkdir()
        for sample, one in zip(local.samples, batch, strict=True):
            Image.fromarray(one.permute(1, 2, 0).byte().numpy()).save(tmp_path / name / f"{sample.id}.png")
    return tmp_path


def scored(images, **options):
    asked = {"task": "vqa", "dataset": "mini-vqa", "limit": LIMIT, "eps": 12, "output": images / "out"}
    asked |= {"images": images / "images", "clean": images / "clean", "save_adversarial": True, "progress": False}
    (run,) = bench.run(**asked | options).runs
    return run


def test_an_endpoint_gives_the_very_answers_of_the_local_model(images, local, endpoint):
    with endpoint(llava(local.victim.model)) as server:
        there = scored(images, vlm=server.vlm)
        assert server.total == 2 * LIMIT
    here = scored(images, encoder="clip", device="cpu")
    answers = [{r.key: (r.prediction, r.score, r.png_score, r.distance) for r in run.records} for run in (there, here)]
    assert answers[0] == answers[1]
    assert len({answer[0] for answer in answers[0].values()}) > 2, "answers that differ, or this would show little"
    assert verify(there, progress=False).outcome == "verified"


def test_images_made_on_an_encoder_are_certified_as_they_are_sent(images, local, endpoint):
    """The embedding attack on plain CLIP: what is kept is in 8 bits, inside the ball, and what was hashed."""
    with endpoint(llava(local.victim.model)) as server:
        asked = {"task": "vqa", "dataset": "mini-vqa", "limit": LIMIT, "eps": 8, "output": images / "out"}
        asked |= {"surrogate": "clip", "attack": "embedding", "save_adversarial": True, "progress": False}
        (run,) = bench.run(vlm=server.vlm, **asked).runs
    attacked = [r for r in run.records if r.step != CLEAN]
    assert run.header.surrogate == "clip"
    assert attacked
    assert all(0 < r.distance <= 8.001 and r.distance == pytest.approx(round(r.distance), abs=1e-3) for r in attacked)
    kept = [r for r in attacked if path_of(run.directory / FOLDER, r.sample_id, 8.0).exists()]
    assert kept, "the attack breaks something"
    for record in kept:
        path = path_of(run.directory / FOLDER, record.sample_id, 8.0)
        assert np.array_equal(read_png(path.with_suffix(".png")) / np.float32(255), read_image(path).pixels)
    assert verify(run, progress=False).outcome == "verified"


def test_kill_9_loses_nothing_and_asks_nothing_twice(folders, endpoint, tmp_path):
    """Killed once an answer is kept, before one is, and before, amid and after records: one answer is asked twice."""
    words = f"--task vqa --dataset mini-vqa --limit {COUNT} --eps 4 --concurrency 1 --quiet --device cpu"
    with endpoint(lambda body, visit: "red") as server:
        places = [str(folders / "images"), "--clean", str(folders / "clean"), "--vlm", server.vlm]
        command = ["score", *places, *words.split(), "--output", str(tmp_path)]
        plan = [
            (command, "after-kept", 3),
            (command, "before-kept", 1),
            (command, "before-records", 1),
            (command, "amid-records", 1),
            (command, "after-records", 1),
            (command, "none", 1),
            (command, "none", 1),
        ]
        ended, said = carry_out(*plan)
        assert ended == [-signal.SIGKILL] * 5 + [0, 0], said
        assert server.total == 2 * COUNT + 1, "the answer that had come and was not kept"
        assert sorted(server.asked.values()) == [1] * (2 * COUNT - 1) + [2]
    (directory,) = find_runs(tmp_path)
    found = load_run(directory)
    assert found.header.status == "complete"
    assert len({r.key for r in found.records}) == len(found.records) == 2 * COUNT
    assert {r.prediction for r in found.records} == {"red"}
    assert torch.tensor([r.distance for r in found.records if r.step != CLEAN]).allclose(torch.tensor(4.0))


def test_the_committed_row_is_what_its_records_say():
    """Behind a real server and on this machine, the answers to the same files are the same."""
    assert not stale(ROOT / "BENCHMARKS.md", "brought", table(ROOT / "results" / "endpoint"))
    there, here = (
        {r.key: (r.prediction, r.score) for r in run.records}
        for run in sorted(load_runs([ROOT / "results" / "endpoint"]), key=lambda run: run.records[0].call is None)
    )
    assert there == here
