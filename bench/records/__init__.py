"""The record store: what a run wrote down, and how it survives a crash.

A *run* is one directory: one (suite, encoder, task, dataset, attack, eps list, seed, sample selection).

    run.json        the header: what was asked, of which code, weights and data; replaced atomically
    records.jsonl   one JSON object a line for each (sample, step); only ever appended to
    samples.jsonl   what was asked: questions and expected answers, for readers of the results
    adversarial/    saved images: see `images`
    records.torn    what a crash left half written, moved aside when the run is resumed
    shards/         the parts of a run in shards, each a directory like this one, until they are joined: see `shards`
    lock            held (flock) by the one process that may write; names its process and machine

`types` has the record, `header` the header, `run` a run as it was read, `columns` its records as tables ask for them,
`ranges` what their values lie between, `store` the one writer, `reading` the readers, `files` what they do to files,
`worst` what a sample is left with at a radius.
"""

from bench.records.files import RecordsError, write_atomically
from bench.records.header import ADDED, IDENTITY, STATUSES, VOLATILE, RunHeader, former_ceiling
from bench.records.reading import ARCHIVED, archive_run, find_runs, load_run, load_runs, read_header, read_records
from bench.records.run import Run
from bench.records.store import RunStore, open_run, place_beside
from bench.records.types import CLEAN, SCHEMA_VERSION, Key, Record

__all__ = [
    "ADDED",
    "ARCHIVED",
    "CLEAN",
    "IDENTITY",
    "SCHEMA_VERSION",
    "STATUSES",
    "VOLATILE",
    "Key",
    "Record",
    "RecordsError",
    "Run",
    "RunHeader",
    "RunStore",
    "archive_run",
    "find_runs",
    "former_ceiling",
    "load_run",
    "load_runs",
    "open_run",
    "place_beside",
    "read_header",
    "read_records",
    "write_atomically",
]
