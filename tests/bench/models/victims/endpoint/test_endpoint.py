"""Endpoints as victims: what is sent, what is kept, what is never written, what tables say."""

import json
import traceback
from hashlib import sha256
from io import BytesIO

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import bench
from bench.cli import main
from bench.config import request_of, resolve
from bench.errors import StoppedError, UsageError
from bench.models.victims.endpoint import pace
from bench.models.victims.endpoint.place import parse
from bench.models.victims.endpoint.replies import is_refusal
from bench.records import CLEAN, load_run
from bench.verify import verify
from tests.bench.models.victims.endpoint.conftest import COUNT
from tests.bench.models.victims.endpoint.server import completion, image_of, prompt_of
from tests.bench.records.test_schemas import assert_described

KEY = "sk-secret-0123456789"
REFUSED = "I'm sorry, but I can't assist with that."


def shade(body):
    """The grey that a request shows."""
    return int(np.asarray(Image.open(BytesIO(image_of(body))))[0, 0, 0])


def test_the_png_that_is_hashed_is_what_is_sent(score, endpoint, samples):
    sent = {}

    def answer(body, visit):
        sent[sha256(image_of(body)).hexdigest()] = body
        return "red"

    with endpoint(answer) as server:
        run = score(server, "enlarge=3&detail=high&answers-as=mini&limit=max_completion_tokens&temperature=none")
    assert {r.call.digest for r in run.records} == set(sent)
    record = run.records[0]
    body = sent[record.call.digest]
    image = np.asarray(Image.open(BytesIO(image_of(body))))
    assert image.shape == (24, 24, 3)
    assert record.call.pixels == sha256(np.ascontiguousarray(image[::3, ::3]).tobytes()).hexdigest()
    assert body["messages"][0]["content"][0]["image_url"]["detail"] == "high"
    assert (body["seed"], "max_completion_tokens" in body, "max_tokens" in body, "temperature" in body) == (
        0, True, False, False,
    )  # fmt: skip
    assert prompt_of(body).startswith(samples[0].prompt)
    assert run.header.protocol["victim"]["enlarge"] == "3", "a setting that moves a number is recorded"
    assert "enlarge=3" in request_of(run.header).vlm[0]


def test_what_is_known_of_a_call_is_recorded(score, endpoint):
    with endpoint(lambda body, visit: completion("red", usage=(1000, 20))) as server:
        run = score(server, price="2,10")
    call = run.records[0].call
    assert (call.outcome, call.asked, call.answered, call.fingerprint) == ("answer", "mini", "mini", "fp-1")
    assert (call.finish_reason, call.prompt_tokens, call.completion_tokens) == ("stop", 1000, 20)
    assert call.cost == pytest.approx(0.0022)
    assert (call.attempts, call.cached, call.latency > 0) == (1, False, True)
    assert load_run(run.directory).records == run.records
    assert_described(run.directory)


def test_a_reader_ignores_what_a_later_version_says_of_a_call(score, endpoint):
    with endpoint(lambda body, visit: "red") as server:
        run = score(server)
    path = run.directory / "records.jsonl"
    path.write_text(path.read_text().replace('"outcome": "answer"', '"outcome": "answer", "mood": "good"'))
    assert load_run(run.directory).records == run.records


@pytest.mark.parametrize("status", [200, 400, 401, 500])
def test_the_key_is_never_written(status, score, endpoint, monkeypatch, tmp_path):
    """A server that repeats the key in all it says; nothing of it is in files, errors or tracebacks."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    said = completion(f"red {KEY}") | {"system_fingerprint": KEY}
    answer = said if status == 200 else (status, {}, {"error": {"message": f"Incorrect key {KEY}", "code": KEY}})
    with endpoint(lambda body, visit: answer) as server:
        try:
            score(server)
        except UsageError as error:
            shown = "".join(traceback.format_exception(error)) + repr(error.__context__)
            assert status == 401
            assert KEY not in shown
            assert "OPENAI_API_KEY is refused" in shown
        assert server.keys == {f"Bearer {KEY}"}, "it was sent all the same"
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(written) > 2
    assert all(KEY.encode() not in path.read_bytes() for path in written)


def test_a_key_that_is_no_secret_is_no_part_of_an_answer(score, endpoint, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with endpoint(lambda body, visit: "none") as server:
        assert {r.prediction for r in score(server).records} == {"none"}


def test_a_key_goes_over_https_or_to_this_machine_only():
    assert parse("https://api.example.org/v1#m").may_see_key
    assert parse("http://localhost:8000/v1#m").may_see_key
    assert parse("http://[::1]:8000/v1#m").may_see_key
    assert not parse("http://api.example.org/v1#m").may_see_key
    assert not parse("http://127.0.0.1.example.org/v1#m").may_see_key


def test_answers_are_kept_whatever_becomes_of_the_run(score, endpoint, tmp_path):
    with endpoint(lambda body, visit: "red") as server:
        first = score(server)
        second = score(server, output=tmp_path / "out", force=True, repeats=1)
        assert server.total == 3 * COUNT, "only the repetitions were asked"
    assert {r.key: r.prediction for r in second.records} == {r.key: r.prediction for r in first.records}
    assert all(r.call.cached for r in second.records)
    assert not any(r.repeats[0].call.cached for r in second.records if r.step == CLEAN)
    assert second.records[0].call.date == first.records[0].call.date, "it says when it was asked"


def test_a_damaged_kept_answer_is_asked_again(score, endpoint, tmp_path):
    with endpoint(lambda body, visit: "red") as server:
        score(server)
        for path in (tmp_path / "out" / "endpoint-cache").rglob("*.json"):
            path.write_text(path.read_text()[:50])
        run = score(server, force=True, repeats=1)
        assert server.total == 2 * 2 * COUNT + COUNT
    assert not any(r.call.cached for r in run.records)


def test_refusals_stand_apart(score, endpoint, samples):
    """Of four samples one declines clean, one attacked: neither is a success, a failure, or a loss of accuracy."""

    def answer(body, visit):
        return REFUSED if shade(body) in (0, 44) else "red"

    with endpoint(answer) as server:
        run = score(server, repeats=1)
        again = score(server, repeats=1)
        assert server.total == COUNT * 2 + COUNT - 1, "who declined is not asked again"
    assert again.records == run.records
    assert run.header.status == "complete"
    rows = {row["radius"]: row for row in bench.api.Result((run,)).rows()}
    assert (rows[0.0]["n"], rows[4.0]["n"]) == (3, 2)
    shown = CliRunner().invoke(main, ["table", str(run.directory)]).output
    assert "clean 1 refused of 4; 4/255 2 refused of 4" in shown
    assert "gave another answer in 0.0 %" in shown
    assert verify(run, progress=False).outcome == "verified"


def test_repeats_give_the_floor_of_disagreement(score, endpoint):
    """Every other time the model says something else of one of the four clean images: 1 of 2 repeats, 12.5 %."""
    with endpoint(lambda body, visit: "blue" if shade(body) == 40 and visit == 2 else "red") as server:
        run = score(server, repeats=2)
        assert server.total == COUNT * 4
    said = {r.sample_id: [one.prediction for one in r.repeats] for r in run.records if r.step == CLEAN}
    assert sorted(said.values()) == [["blue", "red"], *[["red", "red"]] * 3]
    shown = CliRunner().invoke(main, ["table", str(run.directory)]).output
    assert "asked 2 times more about the same clean image, the model gave another answer in 12.5 %" in shown


def test_a_repeat_that_fails_is_asked_again_and_nothing_else(score, endpoint):
    with endpoint(lambda body, visit: (500, {}, {}) if shade(body) == 0 and visit in (2, 3, 4) else "red") as server:
        run = score(server, repeats=1)
        assert [r.error for r in run.records if r.error] == [next(r.error for r in run.records if r.error)]
        assert run.records[0].error.startswith("repeat 1: HTTP 500")
        before = server.total
        run = score(server, repeats=1)
        assert server.total == before + 1 + 1, "the repetition, and the attacked image that waited for it"
    assert run.header.status == "complete"


def test_the_limit_of_cost_is_kept_and_the_run_goes_on_from_there(score, endpoint, tmp_path):
    """Each call costs 1; eight are needed, three commands may spend 3 each."""
    with endpoint(lambda body, visit: completion("red", usage=(1_000_000, 0))) as server:
        for commands in (1, 2):
            with pytest.raises(StoppedError, match="--max-cost 3 is used up: 3 is spent"):
                score(server, price="1,0", max_cost=3, concurrency=2)
            assert server.total == 3 * commands
        run = score(server, price="1,0", max_cost=3)
        assert server.total == 2 * COUNT
    assert run.header.status == "complete"
    assert sum(r.call.cost for r in run.records) == 2 * COUNT


def test_a_limit_of_cost_needs_usage(score, endpoint):
    silent = completion("red")
    del silent["usage"]
    with endpoint(lambda body, visit: silent) as server, pytest.raises(StoppedError, match="how many tokens"):
        score(server, price="1,0", max_cost=3)


def test_so_many_are_asked_at_once(score, endpoint):
    with endpoint(lambda body, visit: "red") as server:
        score(server, concurrency=3)
        assert server.most_at_once <= 3


def test_requests_keep_their_distance(monkeypatch):
    """By a clock that only sleeping moves: 30 a minute, and a pause that the server asks for."""
    now = [100.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(pace.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    turns, queue = [], pace.Pace(30)
    for turn in range(4):
        queue.wait()
        turns.append(now[0])
        if turn == 2:
            queue.hold(7)
    assert turns == [100, 102, 104, 111]


def test_a_changed_image_is_found(score, endpoint):
    """The digest of what was sent tells; the endpoint is not asked again."""
    with endpoint(lambda body, visit: "red" if shade(body) % 40 == 0 else "mud") as server:
        run = score(server)
        total = server.total
        assert verify(run, progress=False).outcome == "verified"
        path = run.directory / "records.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        lines[0]["call"]["pixels"] = "0" * 64
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        found = verify(load_run(run.directory), progress=False)
        assert [mismatch.field for mismatch in found.mismatches] == ["pixels sent"]
        assert server.total == total


@pytest.mark.parametrize(
    ("vlm", "options", "match"),
    [
        ("openai:https://user:pass@host/v1#m", {}, "must hold neither a password"),
        ("openai:https://host/v1?key=1#m", {}, "setting of the victim family"),
        ("openai:https://host/v1", {}, "lacks its model"),
        ("https://host/v1#m", {"tower": "native"}, "an endpoint is named by its family: openai:https://host/v1#m"),
        ("openai:ftp://host#m", {}, "is no address"),
        ("openai:https://host/v1#m?detail=hihg", {}, "did you mean 'high'"),
        ("openai:https://host/v1#m?enlrge=2", {}, "did you mean 'enlarge'"),
        ("openai:https://host/v1#m?enlarge=no", {}, "enlarge of an endpoint must be a number above 0"),
        ("openai:https://host/v1#m", {"encoder": "clip"}, "leave out --encoder"),
        ("openai:https://host/v1#m", {"attack": None}, "an endpoint gives no gradients"),
        ("openai:https://host/v1#m", {"max_cost": 1}, "--max-cost needs the price"),
        ("openai:https://host/v1#m", {"price": "cheap"}, "--price is IN,OUT"),
        ("openai:https://host/v1#m", {"task": "zeroshot", "dataset": "mini-shape"}, "asks no vision-language model"),
        (None, {"rpm": 3, "encoder": "clip"}, "--rpm is for endpoints"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(vlm, options, match, tmp_path):
    asked = {"vlm": vlm, "task": "vqa", "dataset": "mini-vqa", "limit": 2, "attack": "none", "output": tmp_path}
    with pytest.raises(UsageError, match=match):
        bench.run(**asked | options, progress=False)


def test_the_wheres_and_hows_come_back_through_a_header(score, endpoint):
    with endpoint(lambda body, visit: "red") as server:
        run = score(server, rpm=6000, concurrency=2, price="1,2", max_cost=5, repeats=1)
    request = request_of(run.header)
    assert (request.rpm, request.concurrency, request.price, request.max_cost, request.repeats) == (
        6000, 2, "1,2", 5.0, 1,
    )  # fmt: skip
    assert resolve(request)[0].directory.name == run.directory.name


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I cannot assist with this request.", True),
        ("I’m unable to identify people in images.", True),
        ("Unfortunately, I can't provide that", True),
        ("I can't tell", False),
        ("no", False),
        ("A man says: I'm sorry", False),
    ],
)
def test_a_refusal_is_told_by_how_it_begins(text, refused):
    assert is_refusal(text) == refused
