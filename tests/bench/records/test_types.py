"""One record and one header: what survives the round trip, and what is refused."""

import dataclasses
import json
import math

import msgspec
import pytest

from bench.records import (
    ADDED,
    Record,
    RecordsError,
    RunHeader,
)
from tests.bench.runs import make_header, make_record


def same(a: float | None, b: float | None) -> bool:
    return a == b or (a is not None and b is not None and math.isnan(a) and math.isnan(b))


@pytest.mark.parametrize("loss", [1.5, math.nan, math.inf, -math.inf, None, 5e-324, 0.1 + 0.2])
def test_a_record_survives_the_round_trip_with_its_loss(loss):
    record = make_record(loss=loss, prediction='"\n\u2028 é \ud800 \U0001f600')
    line = record.to_json()
    assert "\n" not in line
    assert line.isascii()
    back = Record.from_json(line)
    assert same(back.loss, loss)
    assert msgspec.structs.replace(back, loss=0.0) == msgspec.structs.replace(record, loss=0.0)


def test_nan_is_written_as_a_word_never_as_null_or_zero():
    assert json.loads(make_record(loss=math.nan).to_json())["loss"] == "nan"
    assert json.loads(make_record(loss=-math.inf).to_json())["loss"] == "-inf"
    assert Record.from_json(make_record(prediction="nan").to_json()).prediction == "nan"


def test_bare_nan_in_a_file_is_refused():
    line = make_record(loss=math.nan).to_json().replace('"nan"', "NaN")
    with pytest.raises(RecordsError, match="bare NaN"):
        Record.from_json(line)


@pytest.mark.parametrize("cls", [Record, RunHeader])
def test_every_key_is_needed_and_no_other_is_known(cls):
    text = (make_record() if cls is Record else make_header()).to_json()
    names = Record.__struct_fields__ if cls is Record else [field.name for field in dataclasses.fields(cls)]
    for name in set(names) - {*ADDED, "png_score", "loss_curve", "call", "repeats", "draws", "screen"}:
        data = json.loads(text)
        del data[name]
        with pytest.raises(RecordsError, match=f"missing key {name}"):
            cls.from_json(json.dumps(data))
    with pytest.raises(RecordsError, match="unknown key colour"):
        cls.from_json(json.dumps(json.loads(text) | {"colour": 1}))


@pytest.mark.parametrize(
    "changes",
    [
        {"score": None},
        {"score": math.nan},
        {"score": "100"},
        {"sample_id": 7},
        {"radius": -1.0, "step": "apgd"},
        {"radius": math.nan, "step": "apgd"},
        {"radius": 2.0, "step": "clean"},
        {"evaluations": 1.5},
        {"error": False},
        {"seconds": None},
    ],
)
def test_a_record_that_makes_no_sense_is_refused(changes):
    with pytest.raises(RecordsError, match=next(iter(changes))):
        make_record(**changes)


def test_an_error_row_needs_no_score():
    assert Record.from_json(make_record(score=None, error="NaN in the loss").to_json()).score is None
    assert math.isnan(Record.from_json(make_record(score=math.nan, error="NaN").to_json()).score)


def test_a_header_survives_the_round_trip():
    header = make_header(limit=5, radii=(0.5, 4.0), checks=[{"name": "a", "ok": True, "detail": "é"}])
    assert RunHeader.from_json(header.to_json()) == header
    assert RunHeader.from_json(make_header(protocol={"x": math.nan}).to_json()).protocol == {"x": "nan"}


@pytest.mark.parametrize("changes", [{"schema_version": 3}, {"worst": "most"}, {"status": "done"}, {"radii": (-1.0,)}])
def test_a_header_that_makes_no_sense_is_refused(changes):
    with pytest.raises(RecordsError, match=next(iter(changes))):
        make_header(**changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"status": "complete"}, None),
        ({"status": "complete", "limit": 5}, "--limit 5"),
        ({"status": "started"}, "status started"),
        ({"status": "partial"}, "status partial"),
        ({"status": "failed"}, "status failed"),
    ],
)
def test_what_makes_a_run_partial(changes, reason):
    assert make_header(**changes).partial == reason
