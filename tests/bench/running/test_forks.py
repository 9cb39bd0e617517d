"""The process that workers are forked from: what it imports, and from where."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.config import Request, resolve
from bench.running import forks

ROOT = Path(__file__).parents[3]
SCRIPT = """
import multiprocessing, os, sys
from bench.running import forks

if __name__ == "__main__":
    sys.path.append({library!r})
    before = dict(os.environ)
    forks.PRELOADED = ["wanted", "planted"]
    process = forks.context(on_accelerators=False).Process(target=print)
    process.start()
    process.join()
    assert dict(os.environ) == before
"""


def test_it_imports_what_the_caller_would_and_nothing_that_lies_where_the_user_stands(tmp_path):
    places = {name: tmp_path / name for name in ("script", "library", "here")}
    for place in places.values():
        place.mkdir()
    (places["library"] / "wanted.py").write_text(f"open({str(tmp_path / 'wanted')!r}, 'w').close()")
    (places["here"] / "planted.py").write_text(f"open({str(tmp_path / 'planted')!r}, 'w').close()")
    script = places["script"] / "script.py"
    script.write_text(SCRIPT.format(library=str(places["library"])))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, str(script)], cwd=places["here"], env=environment, check=True)
    assert (tmp_path / "wanted").exists()
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize(
    ("options", "jobs", "on", "begun"),
    [
        ({}, None, "processes", True),
        ({}, 1, "processes", False),
        ({}, None, "inline", False),
        ({"encoder": "clip"}, None, "processes", False),
        ({"encoder": "clip", "shards": 2}, None, "processes", True),
        ({"device": "cuda"}, None, "processes", False),
        ({"device": "cpu"}, 2, "processes", True),
    ],
)
def test_it_is_begun_early_only_for_several_runs_at_once_on_a_cpu(monkeypatch, options, jobs, on, begun):
    calls = []
    monkeypatch.setattr(forks, "begin", lambda: calls.append(1))
    asked = {"encoder": "clip,fare", "task": "zeroshot", "dataset": "mini-shape"} | options
    forks.begin_early(resolve(Request.of(**asked)), jobs, on)
    assert bool(calls) == begun


def test_runs_on_accelerators_begin_in_fresh_processes():
    assert forks.context(on_accelerators=True).get_start_method() == "spawn"
