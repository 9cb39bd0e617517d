"""Exit codes, and what becomes of output that cannot be written."""

import os
import shlex
import subprocess
import sys

import pytest
from click.testing import CliRunner

import bench
from bench.api import Result
from bench.cli import main
from tests.bench.runs import make_run

SANE = [{"name": "gradient", "ok": True, "detail": "fine"}]
FAILED = [{"name": "gradient", "ok": False, "detail": "of 32 samples, 32 have an all-zero gradient"}]


@pytest.mark.parametrize(
    ("checks", "status", "code"),
    [(SANE, "complete", 0), (FAILED, "complete", 1), (SANE, "failed", 1), ([], "complete", 0)],
)
def test_a_failed_sanity_check_is_exit_code_1_and_a_mark_beside_the_number(tmp_path, monkeypatch, checks, status, code):
    run = make_run(tmp_path / "run", {0: [100.0, 0.0], 4: [100.0, 0.0]}, status=status, checks=checks)
    monkeypatch.setattr("bench.api.run", lambda **options: Result((run,)))
    done = CliRunner().invoke(main, ["run", "--encoder", "fare4", "--task", "vqa"])
    assert done.exit_code == code, done.output
    assert ("not credible" in done.stdout) == (checks == FAILED)
    assert ("check failed: gradient" in done.stderr) == (checks == FAILED)
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("fare4") or " fare4 " in line][:1]
    assert ("!" in row) == (checks == FAILED), row


@pytest.mark.parametrize("words", [["list", "encoders"], ["--help"], ["run", "--help"], ["list", "attacks", "--json"]])
def test_a_full_disk_behind_stdout_is_one_line_and_exit_code_2(words):
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "bench", *words], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr.strip() == "bench: cannot write to stdout: No space left on device"


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_traceback_and_no_file_takes_their_place(tmp_path, closed):
    make_run(tmp_path / "run", {0: [100.0, 0.0], 4: [0.0, 0.0]}, n_samples=2)
    words = ["table", "--all", str(tmp_path / "run"), "--write", str(tmp_path / "new.md")]
    command = shlex.join([sys.executable, "-m", "bench", *words])
    ended = subprocess.run(f"{command} {closed}", shell=True, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert "50.0" in (tmp_path / "new.md").read_text()


def test_a_reader_that_goes_away_is_no_traceback():
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m bench list attacks --json | head -c 1"], capture_output=True, text=True
    )
    assert done.stderr == ""


SCRIPT = """
import bench
result = bench.run("clip,fare", "zeroshot", dataset="mini-shape", limit=2, attack="none", jobs=2, progress=False,
                   output={output!r})
print("encoders:", *[run.header.encoder for run in result.runs])
"""


def test_a_script_without_a_main_guard_runs_once(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(output=str(tmp_path / "runs")))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "encoders: clip fare4\n"


def test_an_output_folder_may_hold_the_separator_of_paths(tmp_path):
    output = tmp_path / f"out{os.pathsep}dir"
    words = ["--dataset", "mini-shape,mini-colour", "--limit", "1", "--attack", "none", "--jobs", "1", "--quiet"]
    done = CliRunner().invoke(main, ["run", "--encoder", "clip", "--task", "zeroshot", *words, "--output", str(output)])
    assert done.exit_code == 0, done.output
    assert str(output) in done.stdout


def test_the_library_takes_paths_and_numpy_numbers(tmp_path):
    import shutil
    from importlib import resources
    from pathlib import Path

    import numpy as np

    shutil.copytree(str(resources.files("bench") / "mini/weights/clip"), tmp_path / "mine")
    result = bench.run(
        Path(tmp_path / "mine"), "zeroshot", dataset="mini-shape", limit=np.int64(2), seed=np.int32(1), jobs=np.int8(1),
        attack="noise", eps=np.float32(2), output=tmp_path / "runs", progress=False,
    )  # fmt: skip
    assert result.runs[0].header.n_samples == 2
