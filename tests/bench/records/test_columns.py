"""Columns say what the records say, and read nothing that the exact reader would refuse."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.records import RecordsError, Run, columns, load_run
from bench.records.reading import decode
from bench.records.worst import groups_at, groups_of, scores_at, worst_scores
from tests.bench.runs import make_header, make_record, make_run

RADII = (2.0, 4.0)


@st.composite
def recorded(draw):
    """Records of a few samples: clean ones, attacks, errors, in any order."""
    found = {}
    for sample, step in draw(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["clean", "x", "y"])))):
        radius = 0.0 if step == "clean" else draw(st.sampled_from((0.0, *RADII)))
        failed = draw(st.integers(0, 3)) == 0
        score = None if failed else draw(st.sampled_from([0.0, 50.0, 100.0]))
        record = make_record(sample, step, radius, score, error="no" if failed else None)
        found[record.key] = record
    return list(found.values())


@settings(max_examples=200, deadline=None, derandomize=True)
@given(records=recorded(), worst=st.sampled_from(["min", "max"]), name=st.sampled_from(["strict", "paper"]))
def test_what_samples_are_left_with_is_what_the_records_say(records, worst, name):
    protocol = {"name": name, "precision": "float32", "cumulative_radii": name == "strict"}
    run = Run(None, make_header(worst=worst, radii=RADII, protocol=protocol), records)
    for radius in (0.0, *RADII):
        assert scores_at(run, radius) == worst_scores(run.header, records, radius)
    assert groups_at(run) == groups_of(records)
    with pytest.raises(ValueError, match="no radius"):
        scores_at(run, 3.0)


def lines_of(*records):
    return b"".join(record.to_json().encode() + b"\n" for record in records)


SOUND = [make_record(s, step, radius) for s in "abc" for step, radius in (("clean", 0.0), ("x", 2.0), ("x", 4.0))]


@pytest.mark.parametrize("chunk", [1, 200, 1 << 20])
def test_lines_are_read_chunk_by_chunk(chunk, monkeypatch):
    monkeypatch.setattr(columns, "CHUNK", chunk)
    read = columns.read(lines_of(*SOUND), make_header(radii=RADII))
    expected = columns.of_records(SOUND)
    for field in dataclasses.fields(columns.Columns):
        one, other = getattr(read, field.name), getattr(expected, field.name)
        assert list(one) == list(other) if hasattr(one, "__len__") else one == other


@pytest.mark.parametrize(
    "change",
    [
        {"radius": 3.0},
        {"radius": -2.0},
        {"radius": "nan"},
        {"radius": True},
        {"score": 101.0},
        {"score": -1.0},
        {"score": None},
        {"score": "nan"},
        {"png_score": 200.0},
        {"distance": 2.1},
        {"distance": -1.0},
        {"distance": "inf"},
        {"seconds": -1.0},
        {"evaluations": -1},
        {"evaluations": 1.5},
        {"evaluations": 2**53},
        {"prediction": 5},
        {"group": "another"},
        {"sample_id": None},
        {"step": "clean"},
        {"loss_curve": ["a"]},
        {"more": 1},
        {"sample_id": "b", "group": "image of b"},
    ],
)
def test_what_the_exact_reader_refuses_the_fast_one_does_not_read(change, tmp_path):
    header = make_header(radii=RADII)
    rows = [json.loads(record.to_json()) for record in SOUND]
    rows[1] |= change
    content = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    assert columns.read(content, header) is None
    with pytest.raises(RecordsError):
        decode(content.splitlines(), tmp_path, header)


@pytest.mark.parametrize(
    "damage", [lambda c: c[:-30] + b"\n", lambda c: c.replace(b"\n", b"\n\n", 1), lambda c: b"[]\n"]
)
def test_damaged_lines_are_left_to_the_exact_reader(damage):
    assert columns.read(damage(lines_of(*SOUND)), make_header(radii=RADII)) is None


def test_an_error_that_was_made_good_is_left_to_the_exact_reader():
    failed = make_record("a", "x", 2.0, None, error="out of memory")
    assert columns.read(lines_of(SOUND[0], failed, SOUND[1]), make_header(radii=RADII)) is None


def test_no_object_is_made_until_records_are_asked_for(tmp_path, monkeypatch):
    made = make_run(tmp_path / "run", {0: [100.0, 100.0, 0.0], 2: [100.0, 0.0, 0.0], 4: [0.0, 0.0, 0.0]})
    asked = []
    monkeypatch.setattr("bench.records.reading.decode", lambda lines, *_: asked.append(len(lines)) or [])
    run = load_run(made.directory)
    assert scores_at(run, 4.0) == {"s0": 0.0, "s1": 0.0, "s2": 0.0}
    assert run.records_of(set()) == []
    assert asked == []
    run.records_of({"s1"})
    run.records  # noqa: B018 - reads them
    assert asked == [3, 9]


def test_the_records_of_some_samples_are_theirs(tmp_path):
    made = make_run(tmp_path / "run", {0: [100.0, 100.0, 0.0], 2: [100.0, 0.0, 0.0], 4: [0.0, 0.0, 0.0]})
    wanted = [record for record in made.records if record.sample_id in {"s0", "s2"}]
    assert load_run(made.directory).records_of({"s0", "s2"}) == wanted
    assert made.records_of({"s0", "s2"}) == wanted
