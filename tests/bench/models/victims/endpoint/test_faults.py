"""Every way in which an endpoint can fail, by a real server: what is recorded, what is asked again, how often.

The table in docs/endpoints.md is made of `FAULTS`: ``python -m tests.bench.models.victims.endpoint.test_faults``.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.errors import StoppedError, UsageError
from bench.models.victims.endpoint.cache import Cache
from bench.models.victims.endpoint.pace import Pace
from bench.records import CLEAN, find_runs, load_run
from bench.tables.blocks import stale, write_block
from bench.tables.render import markdown_table
from tests.bench.models.victims.endpoint.conftest import COUNT
from tests.bench.models.victims.endpoint.server import completion, cut_short, drip, image_of, reset, sleep

DOCUMENT = Path(__file__).parents[5] / "docs" / "endpoints.md"
RIGHT = "red"
REFUSED = "I'm sorry, but I can't assist with that."
STEADY, AWAY = "steady", "away"


@dataclass(frozen=True)
class Fault:
    """What the server does to the first sample's clean image, and what comes of it.

    Attributes:
        answer: in place of a good one.
        visits: how often it is so; then the answer is good.
        outcome: of the call as it is recorded.
        error: what the record says; "" where there is none.
        requests: for this image in the first command, and in the second.
        then: the outcome after the second command.
    """

    name: str
    answer: object
    visits: int
    outcome: str
    error: str
    requests: tuple[int, int]
    then: str
    timeout: float = 60.0  # a busy machine must not look like a slow server

    @property
    def happened(self) -> str:
        """In words."""
        if self.outcome == "answer":
            return "answered" if self.requests[0] == 1 else "asked again, then answered"
        if self.outcome in ("refusal", "filtered"):
            return f"recorded as {self.outcome}: no score, no failure, not asked again"
        then = "and has an answer" if self.then == "answer" else "and fails again"
        return f"row without a score; the next command asks again {then}"


def error(status, code=None, headers=None, message="no"):
    return status, headers or {}, {"error": {"message": message, "code": code}}


FOREVER = 99
FAULTS = [
    Fault("429 with Retry-After", error(429, headers={"Retry-After": "0.2"}), 1, "answer", "", (2, 0), "answer"),
    Fault("429 with Retry-After, for ever", error(429, headers={"Retry-After": "0.01"}), FOREVER, "error",
          "HTTP 429", (3, 3), "error"),
    Fault("500 once", error(500), 1, "answer", "", (2, 0), "answer"),
    Fault("500 three times", error(500), 3, "error", "HTTP 500", (3, 1), "answer"),
    Fault("400", error(400, message="image too small"), FOREVER, "error", "HTTP 400: .*image too small", (1, 1),
          "error"),
    Fault("time-out once", sleep(6), 1, "answer", "", (2, 0), "answer", 3),
    Fault("connection reset once", reset, 1, "answer", "", (2, 0), "answer"),
    Fault("connection reset three times", reset, 3, "error", "the connection failed", (3, 1), "answer"),
    Fault("response cut short", cut_short, 1, "answer", "", (2, 0), "answer"),
    Fault("JSON cut short", (200, {}, '{"id": "c", "choices": [{"mess'), 3, "error", "no chat completion", (3, 1),
          "answer"),
    Fault("web page", (200, {"Content-Type": "text/html"}, "<html>Sign in</html>"), 3, "error", "web page", (3, 1),
          "answer"),
    Fault("error in a response that says 200", (200, {}, {"error": {"message": "overloaded"}}), 1, "answer", "", (2, 0),
          "answer"),
    Fault("slow drip", drip, 1, "answer", "", (2, 0), "answer", 3),
    Fault("empty content", completion(""), 1, "empty", "the answer is empty .finish reason stop", (1, 1), "answer"),
    Fault("no content, finish reason length", completion(None, finish="length"), 1, "empty", "finish reason length",
          (1, 1), "answer"),
    Fault("finish reason length", completion(RIGHT, finish="length"), FOREVER, "answer", "", (1, 0), "answer"),
    Fault("finish reason content_filter", completion("", finish="content_filter"), FOREVER, "filtered", "filtered",
          (1, 0), "filtered"),
    Fault("400 with code content_filter", error(400, "content_filter", message="policy"), FOREVER, "filtered",
          "filtered: ", (1, 0), "filtered"),
    Fault("refusal in its own field", completion(None, refusal="No."), FOREVER, "refusal", "refusal: No.", (1, 0),
          "refusal"),
    Fault("refusal in words", completion(REFUSED), FOREVER, "refusal", "refusal: I'm sorry", (1, 0), "refusal"),
    Fault("another model answers", completion(RIGHT, model="mini-2"), 1, "error",
          "asked for 'mini', 'mini-2' answered", (1, 1), "answer"),
]  # fmt: skip


def answering(fault, clean_bytes):
    """The server's answers: the fault for one image, a good one for all others."""
    seen = []

    def answer(body, visit):
        if image_of(body) != clean_bytes:
            return RIGHT
        seen.append(visit)
        return fault.answer if len(seen) <= fault.visits else RIGHT

    return answer, seen


@pytest.fixture
def first_image(folders, samples):
    return (folders / "clean" / f"{samples[0].id}.png").read_bytes()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_what_happens(fault, score, endpoint, first_image, samples):
    answer, seen = answering(fault, first_image)
    with endpoint(answer) as server:
        patience = f"backoff=0.01&attempts=3&timeout={fault.timeout:g}"
        run = score(server, patience)
        record = next(r for r in run.records if r.sample_id == samples[0].id and r.step == CLEAN)
        assert (record.call.outcome, len(seen)) == (fault.outcome, fault.requests[0])
        assert (record.error is None) == (fault.outcome == "answer") == (record.score is not None)
        assert re.match(f"{fault.error}" if fault.error else "None", str(record.error)) or fault.error in record.error
        assert run.header.status == ("complete" if record.settled else "failed")
        others = [r for r in run.records if r.sample_id != samples[0].id]
        assert len(others) == 2 * (COUNT - 1), "the other samples are not touched"
        assert all(r.error is None for r in others)
        again = score(server, patience)
        record = next(r for r in again.records if r.sample_id == samples[0].id and r.step == CLEAN)
        assert (record.call.outcome, len(seen)) == (fault.then, sum(fault.requests))
        beside = {key: count for key, count in server.asked.items() if count > 1}
        assert len(beside) <= 1, "nothing else was asked twice"
        keys = [r.key for r in again.records]
        assert len(keys) == len(set(keys))
        if fault.then == "answer":
            assert server.total == 2 * COUNT - 1 + sum(fault.requests)
            assert again.header.status == "complete"


def test_the_server_says_how_long_to_wait(score, endpoint, first_image, monkeypatch):
    asked, hold = [], Pace.hold
    monkeypatch.setattr(Pace, "hold", lambda pace, seconds: asked.append(seconds) or hold(pace, seconds))
    answer, _ = answering(FAULTS[0], first_image)
    with endpoint(answer) as server:
        score(server)
        gaps = [b - a for a, b in zip(server.times, server.times[1:], strict=False)]
    assert asked == [0.2]
    assert gaps[0] >= 0.2


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (error(401, message="bad key"), UsageError, "it wants a key: set OPENAI_API_KEY in the environment .HTTP 401"),
        (error(404), UsageError, "has no model 'mini', or is not the API"),
        (error(429, "insufficient_quota", message="pay"), StoppedError, "pay. What was answered is kept"),
        (error(429, headers={"Retry-After": "4000"}), StoppedError, "asks to wait 4000 s"),
    ],
)
def test_what_ends_a_run_at_once(answer, kind, words, score, endpoint, tmp_path):
    with endpoint(lambda body, visit: answer) as server:
        with pytest.raises(kind, match=words):
            score(server)
        assert server.total == 1
    (directory,) = find_runs(tmp_path / "out")
    assert load_run(directory).records == []


def test_a_model_that_is_never_the_one_asked_for_is_given_up(score, endpoint, monkeypatch):
    monkeypatch.setattr("bench.models.victims.endpoint.caller.MOST_FAILURES", 3)
    with endpoint(lambda body, visit: completion(RIGHT, model="mini-2")) as server:
        with pytest.raises(
            StoppedError, match="3 calls in a row failed, the last: asked for 'mini', 'mini-2' answered"
        ):
            score(server)
        assert server.total == 3, "each of them costs"


def test_an_endpoint_that_is_away_is_given_up(score, endpoint, monkeypatch, tmp_path):
    monkeypatch.setattr("bench.models.victims.endpoint.caller.MOST_FAILURES", 3)
    with endpoint(lambda body, visit: error(503)) as server:
        with pytest.raises(StoppedError, match="3 calls in a row failed, the last: HTTP 503"):
            score(server)
        assert server.total == 9
    (directory,) = find_runs(tmp_path / "out")
    assert load_run(directory).header.status == "partial"


def table() -> str:
    rows = [[f.name, f.outcome, f.happened, *map(str, f.requests)] for f in FAULTS]
    heads = ["what the server does", "recorded as", "what happens", "requests", "of the next command"]
    return markdown_table([heads, *rows])


def test_the_document_has_this_table():
    assert not stale(DOCUMENT, "faults", table())


def test_a_kept_answer_is_read_from_a_file_alone(tmp_path):
    """Neither waited for in a pipe nor read or written through a link."""
    cache = Cache(tmp_path / "cache", "http://127.0.0.1/v1", "m")
    pipe, link = cache.path({"k": 1}, 0), cache.path({"k": 2}, 0)
    for path in (pipe, link):
        path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(pipe)
    (tmp_path / "precious").write_text("precious")
    link.symlink_to(tmp_path / "precious")
    assert cache.get(pipe) is None
    assert cache.get(link) is None
    assert (tmp_path / "precious").read_text() == "precious"


if __name__ == "__main__":
    write_block(DOCUMENT, "faults", table())
