"""Engines: the same records from each; what is none is named; a killed worker is one line."""

import os
from pathlib import Path

import pytest

from bench import registry
from bench.config import Request, resolve
from bench.errors import UsageError
from bench.records import load_run
from bench.running.engines import execute_all
from tests.bench.toy_runs import bare


def configs(output, encoders="clip,fare2"):
    options = {"task": "zeroshot", "dataset": "mini-shape", "attack": "pgd", "eps": 2, "limit": 3}
    return resolve(Request.of(encoder=encoders, output=output, **options))


def test_the_default_and_the_inline_engine_record_the_same_in_the_order_asked_for(tmp_path):
    found = {
        engine: [load_run(d) for d in execute_all(configs(tmp_path / engine), jobs=2, progress=False, on=engine)]
        for engine in ("processes", "inline")
    }
    for runs in found.values():
        assert [run.header.encoder for run in runs] == ["clip", "fare2"]
    for ours, theirs in zip(*found.values(), strict=True):
        assert bare(ours.records) == bare(theirs.records)
        assert [r.loss for r in ours.records] == [r.loss for r in theirs.records]


def test_an_unknown_engine_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(UsageError, match=r"unknown engine 'procesess'; did you mean 'processes'\? known: .*inline"):
        execute_all(configs(tmp_path), on="procesess")


def test_what_is_no_engine_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(registry.ENGINES, "mine", "pathlib:Path")
    with pytest.raises(UsageError, match="'mine' is no class with submit and watch"):
        execute_all(configs(tmp_path), on="mine")


def die(config, place):
    os.kill(os.getpid(), 9)


def test_a_killed_worker_is_one_line_and_what_is_recorded_is_kept(tmp_path, monkeypatch):
    whole = [load_run(d) for d in execute_all(configs(tmp_path), jobs=1, progress=False)]
    monkeypatch.setattr("bench.running.engines.processes._execute_in_worker", die)
    with pytest.raises(UsageError, match=r"a worker process was killed.*give the command again.*--jobs"):
        execute_all(configs(tmp_path), jobs=2, progress=False)
    for before in whole:
        assert load_run(Path(before.directory)).records == before.records
