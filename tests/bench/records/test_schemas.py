"""The shipped JSON Schemas: they describe what is written, and refuse what the readers refuse."""

import dataclasses
import json
import math
from importlib import resources
from pathlib import Path

import msgspec
import pytest
from jsonschema import Draft202012Validator, FormatChecker

from bench.records import ADDED, Record, RecordsError, RunHeader, find_runs, load_run, open_run, read_records
from tests.bench.runs import make_header, make_record

ROOT = Path(__file__).parents[3]


def validator(name) -> Draft202012Validator:
    schema = json.loads(resources.files("bench.records").joinpath("schemas", f"{name}.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, format_checker=FormatChecker())


RUN, RECORD = validator("run"), validator("record")


def assert_described(directory: Path, every: int = 1) -> None:
    """The header of a run fits its schema, and so does every so-manieth record."""
    RUN.validate(json.loads((directory / "run.json").read_text()))
    for line in (directory / "records.jsonl").read_bytes().splitlines()[::every]:
        RECORD.validate(json.loads(line))


OPTIONAL = ("png_score", "loss_curve", "call", "repeats", "draws", "screen")


def test_the_schemas_have_the_fields_of_the_types():
    assert list(RECORD.schema["properties"]) == [f.name for f in msgspec.structs.fields(Record)]
    assert RECORD.schema["required"] == [f.name for f in msgspec.structs.fields(Record) if f.name not in OPTIONAL]
    assert list(RUN.schema["properties"]) == [f.name for f in dataclasses.fields(RunHeader)]
    assert RUN.schema["required"] == [f.name for f in dataclasses.fields(RunHeader) if f.name not in ADDED]


@pytest.mark.parametrize("directory", find_runs(ROOT / "results" / "mini"), ids=lambda d: d.name)
def test_the_committed_runs_of_schema_version_1_fit_once_they_are_read(directory):
    run = load_run(directory)
    RUN.validate(json.loads(run.header.to_json()))
    for record in run.records[::25]:
        RECORD.validate(json.loads(record.to_json()))


def test_a_line_of_schema_version_1_is_read_alone_and_among_others(tmp_path):
    record = make_record("s1", "apgd", 4.0, 0.0, loss_curve=(1.0, 2.0))
    former = json.loads(record.to_json())
    former |= {"eps_255": former.pop("radius"), "distance_255": former.pop("distance"), "flags": []}
    former["course"] = former.pop("loss_curve")
    assert Record.from_json(json.dumps(former)) == record
    with open_run(tmp_path, make_header()) as store:
        store.append([make_record("s0")])
    with (tmp_path / "records.jsonl").open("a") as file:
        file.write(json.dumps(former) + "\n")
    assert read_records(tmp_path) == [make_record("s0"), record]
    (tmp_path / "records.jsonl").write_text(json.dumps(former) + "\n")
    assert read_records(tmp_path) == [record]


def test_what_the_store_writes_fits(tmp_path):
    with open_run(tmp_path, make_header(limit=3, ended=None, code={"commit": None, "dirty": None})) as store:
        store.append([make_record(), make_record("s1", loss=math.nan), make_record("s2", loss=-math.inf)])
        store.append([make_record("s3", score=math.nan, error="NaN"), make_record("s4", score=None, error="oom")])
        assert_described(tmp_path)
        store.finish("partial", [{"name": "masking", "ok": True, "detail": ""}])
    assert_described(tmp_path)
    assert len(read_records(tmp_path)) == 5


@pytest.mark.parametrize(
    "changes",
    [
        {"score": None},
        {"score": "nan"},
        {"score": "100"},
        {"loss": "NaN"},
        {"sample_id": 7},
        {"radius": -1.0, "step": "apgd"},
        {"radius": 2.0, "step": "clean"},
        {"evaluations": 1.5},
        {"error": False},
        {"seconds": None},
        {"colour": 1},
    ],
    ids=str,
)
def test_schema_and_reader_refuse_the_same_records(tmp_path, changes):
    data = json.loads(make_record().to_json()) | changes
    assert not RECORD.is_valid(data)
    with pytest.raises(RecordsError):
        Record.from_json(json.dumps(data))
    with open_run(tmp_path, make_header()) as store:
        store.append([make_record("before")])
    with (tmp_path / "records.jsonl").open("a") as file:
        file.write(json.dumps(data) + "\n")
    with pytest.raises(RecordsError, match=r"records\.jsonl, line 2: "):
        read_records(tmp_path)


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(RunHeader) if f.name not in ADDED])
def test_a_header_without_a_field_does_not_fit(name):
    data = json.loads(make_header().to_json())
    RUN.validate(data)
    del data[name]
    assert not RUN.is_valid(data)


@pytest.mark.parametrize(
    "changes",
    [
        {"schema_version": 3},
        {"worst": "most"},
        {"status": "done"},
        {"radii": [-1.0]},
        {"started": "yesterday"},
        {"checks": [{"name": "a"}]},
        {"colour": 1},
    ],
    ids=str,
)
def test_a_header_that_makes_no_sense_does_not_fit(changes):
    assert not RUN.is_valid(json.loads(make_header().to_json()) | changes)


def test_numbers_that_are_not_finite_and_any_text_are_read_back_from_a_file(tmp_path):
    wanted = [
        make_record("s0", loss=math.inf),
        make_record("s1", prediction='"\n\u2028 é \ud800 \U0001f600'),
        make_record("s2", prediction="nan", loss=-math.inf),
        make_record("s3"),
    ]
    with open_run(tmp_path, make_header()) as store:
        store.append(wanted)
    assert read_records(tmp_path) == wanted
