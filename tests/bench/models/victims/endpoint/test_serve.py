"""A real server of other people's making: `transformers serve` with the miniature LLaVA, on the loopback."""

import socket

import pytest

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
