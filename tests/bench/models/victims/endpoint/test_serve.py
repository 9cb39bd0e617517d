"""A real server of other people's making: `transformers serve` with the miniature LLaVA, on the loopback."""

import socket

import pytest

import bench
from bench.records.images import FOLDER, path_of
from benchmarks.endpoint import served
from tests.bench.models.victims.endpoint.test_local import LIMIT, images, local, scored  # noqa: F401 - fixtures

pytestmark = pytest.mark.serve


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_it_gives_the_very_answers_of_the_local_model(images):  # noqa: F811 - the fixture
    with served(free_port()) as vlm:
        there = scored(images, vlm=vlm)
    here = scored(images, tower="native", device="cpu")
    answers = [{r.key: (r.prediction, r.score, r.png_score, r.distance) for r in run.records} for run in (there, here)]
    assert len(answers[0]) == 2 * LIMIT
    assert answers[0] == answers[1]


def test_images_made_on_an_ensemble_get_the_answers_of_the_local_model(tmp_path):
    """The run on the endpoint makes and keeps them; the same PNGs are then shown to the model that is loaded here."""
    asked = {"task": "vqa", "dataset": "mini-vqa", "limit": LIMIT, "eps": 8, "progress": False}
    with served(free_port()) as vlm:
        (there,) = bench.run(
            **asked, vlm=vlm, surrogate="clip,fare2", ensemble="mean", attack="embedding", save_adversarial=True,
            output=tmp_path / "there",
        ).runs  # fmt: skip
    attacked = {r.sample_id: r for r in there.records if r.radius}
    kept = {key: path_of(there.directory / FOLDER, key, 8.0).with_suffix(".png") for key in attacked}
    kept = {key: path for key, path in kept.items() if path.exists()}
    assert kept, "the attack changes an answer"
    for folder, radius in (("images", 8.0), ("clean", 0.0)):
        (tmp_path / folder).mkdir()
        for key in {r.sample_id for r in there.records}:
            made = path_of(there.directory / FOLDER, key, radius).with_suffix(".png")
            clean = path_of(there.directory / FOLDER, key, 0.0).with_suffix(".png")
            (tmp_path / folder / f"{key}.png").write_bytes((made if made.exists() else clean).read_bytes())
    here = scored(tmp_path, tower="native", device="cpu", eps=8, output=tmp_path / "here")
    said = {r.sample_id: (r.prediction, r.score) for r in here.records if r.radius}
    assert {key: said[key] for key in kept} == {key: (attacked[key].prediction, attacked[key].score) for key in kept}
