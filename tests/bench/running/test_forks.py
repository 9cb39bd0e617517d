"""The process that workers are forked from: what it imports, and from where."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.config import Request, resolve
from bench.running import engines, forks, shards

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
        ({"encoder": "clip"}, None, "processes", True),  # which is split
        ({"encoder": "clip", "limit": 2 * forks.WORTH - 1}, None, "processes", False),
        ({"encoder": "clip", "shards": 1}, None, "processes", False),
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


def test_who_waits_for_workers_imports_no_models(tmp_path):
    """What would load them is loaded in the workers."""
    script = f"""
import sys
from bench.config import Request, resolve
from bench.running import engines, forks
from bench.running.engines.driving import Drive

forks.PRELOADED = []
Drive.carry_out = lambda self, display: [ValueError("nothing was started")] * len(self.configs)
try:
    asked = Request.of(encoder="clip,fare", task="zeroshot", dataset="mini-shape", output={str(tmp_path)!r})
    engines.execute_all(resolve(asked), jobs=2, progress=False)
except ValueError as error:
    print(error, *(name for name in ("bench.running.load", "open_clip", "transformers") if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout == "nothing was started\n"


@pytest.mark.parametrize("count", [1, 2])
def test_what_joins_shards_is_imported_while_workers_begin(tmp_path, monkeypatch, count):
    class Nothing:
        def submit(self, configs):
            calls.append("submit")

        def watch(self):
            return [ValueError("nothing was started")] * count

    calls = []
    monkeypatch.setattr(shards, "begin_joining", lambda: calls.append("import"))
    monkeypatch.setattr(engines, "make_engine", lambda *given: Nothing())
    asked = Request.of(encoder="clip", task="zeroshot", dataset="mini-shape", shards=count, output=tmp_path)
    with pytest.raises(ValueError, match="nothing was started"):
        engines.execute_all(resolve(asked), progress=False)
    assert calls == ["import"] * (count > 1) + ["submit"]
