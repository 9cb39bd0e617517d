"""What the tests of verify change in a run, and what it then finds."""

import json

from bench.records import load_run
from bench.records.images import path_of
from bench.records.worst import kept_records
from bench.verify import verify


def fields_of(directory):
    """Sample, radius and field of every mismatch."""
    return {(m.sample_id, m.radius, m.field) for m in verify(load_run(directory), progress=False).mismatches}


def image_of(run, radius=4.0):
    """Path and record of the first image that is kept at a radius."""
    record = next(r for (_, at), r in kept_records(run.header, run.records).items() if at == radius)
    return path_of(run.directory / "adversarial", record.sample_id, radius), record


def edit(run, record, **changes):
    """Write other values into the record file; without any, leave the record out."""
    path = run.directory / "records.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    (line,) = [x for x in lines if (x["sample_id"], x["step"], x["radius"]) == record.key]
    line.update(changes)
    left = lines if changes else [x for x in lines if x is not line]
    path.write_text("".join(json.dumps(x) + "\n" for x in left))
