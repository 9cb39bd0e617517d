"""``kill -9`` at every moment of a real run, and of its resumption: nothing is lost, done twice or changed."""

import dataclasses
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

import bench
from bench.analysis.cells import measured
from bench.records import VOLATILE, RecordsError, find_runs, load_run
from bench.tables.rows import rows as rows_of
from tests.bench.records.test_schemas import assert_described
from tests.bench.running.kills import carry_out
from tests.commands import begin

ROOT = Path(__file__).parents[3]
COMMON = "run --encoder fare --quiet --jobs 1 --device cpu --eps 4,8 --batch-size 2"


def command(task, output, attack="pgd", limit=4):
    return [*COMMON.split(), "--task", task, "--attack", attack, "--limit", str(limit), "--output", str(output)]


def contents(output):
    """What a command's runs say, seconds aside: headers, records in no order, and the table's rows."""
    runs = [load_run(directory) for directory in find_runs(output)]
    headers = {
        run.directory.name: {f.name: getattr(run.header, f.name) for f in dataclasses.fields(run.header)
                             if f.name not in VOLATILE} | {"status": run.header.status}
        for run in runs
    }  # fmt: skip
    records = {
        run.directory.name: sorted((msgspec.structs.replace(r, seconds=0.0) for r in run.records), key=lambda r: r.key)
        for run in runs
    }
    rows = [{key: value for key, value in row.items() if key != "run_dir"} for row in rows_of(measured(runs))]
    return headers, records, rows


def assert_same(killed, straight):
    """Equal; the loss to float32's precision, for the batch that a torn line is redone in is smaller."""
    (headers, records, rows), (wanted_headers, wanted_records, wanted_rows) = contents(killed), contents(straight)
    assert headers == wanted_headers
    assert rows == wanted_rows
    assert records.keys() == wanted_records.keys()
    for name, wanted in wanted_records.items():
        blank = [[msgspec.structs.replace(r, loss=None) for r in side] for side in (records[name], wanted)]
        assert blank[0] == blank[1]
        losses = [[r.loss for r in side if r.loss is not None] for side in (records[name], wanted)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for directory in find_runs(killed):
        lines = (directory / "records.jsonl").read_text().splitlines()
        keys = [tuple(json.loads(line)[k] for k in ("sample_id", "step", "radius")) for line in lines]
        assert len(keys) == len(set(keys))
        assert_described(directory)


def test_a_run_killed_in_each_stage_and_while_it_resumes_ends_as_if_it_had_not_been(tmp_path):
    straight, killed = command("vqa", tmp_path / "straight"), command("vqa", tmp_path / "killed")
    ended, shown = carry_out(
        (straight, "none", 1),
        (killed, "amid-records", 1),  # clean: half a batch is on the disk
        (killed, "recovering", 1),  # the resumption dies before it has fixed that
        (killed, "before-records", 3),  # attack: images were made, nothing was written
        (killed, "amid-finish", 1),
        ([*killed, "--batch-size", "3"], "none", 1),
    )
    dead = -signal.SIGKILL
    assert ended == [0, dead, dead, dead, dead, 0], shown
    assert_same(tmp_path / "killed", tmp_path / "straight")


@pytest.mark.slow
@pytest.mark.parametrize(("task", "attack"), [("zeroshot", "pgd"), ("vqa", "answers")])
def test_every_moment_of_every_stage_can_be_the_last(tmp_path, task, attack):
    """Each command dies at another moment; `answers` goes on from saved images, which must be saved in time too."""
    straight, killed = (command(task, tmp_path / name, attack, limit=12) for name in ("straight", "killed"))
    plan = [(straight, "none", 1)]
    for nth in (1, 2, 3):
        plan += [(killed, moment, 1) for moment in ("loading", "opening", "recovering")]  # a command's only visit
        plan += [(killed, f"{m}-records", nth) for m in ("before", "amid", "after")]
    plan += [(killed, f"{m}-finish", 1) for m in ("before", "amid", "after")]
    plan.append((killed, "none", 1))
    ended, shown = carry_out(*plan)
    assert (ended[0], ended[-1]) == (0, 0), shown
    assert set(ended[1:-1]) <= {-signal.SIGKILL, 0}, shown
    assert ended.count(-signal.SIGKILL) >= 15
    assert_same(tmp_path / "killed", tmp_path / "straight")


@pytest.mark.slow
def test_a_command_killed_at_random_times_ends_as_if_it_had_not_been(tmp_path):
    words = [sys.executable, "-m", "bench"]
    began = time.monotonic()
    subprocess.run([*words, *command("zeroshot", tmp_path / "straight")], cwd=ROOT, check=True, capture_output=True)
    duration = time.monotonic() - began
    random.seed(1)
    kills = 0
    for _ in range(8):
        process = subprocess.Popen([*words, *command("zeroshot", tmp_path / "killed")], cwd=ROOT,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        try:
            process.wait(timeout=duration * random.uniform(0.3, 0.9))
        except subprocess.TimeoutExpired:
            process.kill()
            kills += process.wait() == -signal.SIGKILL
    subprocess.run([*words, *command("zeroshot", tmp_path / "killed")], cwd=ROOT, check=True, capture_output=True)
    assert kills >= 2
    assert_same(tmp_path / "killed", tmp_path / "straight")


def test_ctrl_c_keeps_what_was_computed_and_says_so(tmp_path):
    """A real SIGINT to a real command; the run is marked partial, and the same command completes it."""
    process = begin(*command("vqa", tmp_path, limit=6))
    deadline = time.monotonic() + 120
    while not list(tmp_path.rglob("records.jsonl")) or not next(tmp_path.rglob("records.jsonl")).stat().st_size:
        assert process.poll() is None, process.stderr
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send(signal.SIGINT)
    assert process.wait() != 0
    (directory,) = find_runs(tmp_path)
    run = load_run(directory)
    assert run.header.status == "partial"
    assert run.header.ended is not None
    assert run.records


def test_a_torn_last_line_is_repaired_in_a_run_that_saves_its_images(tmp_path):
    """The command given again, as the error says; a run that saved none is refused as ever."""
    asked = {"encoder": "clip", "task": "zeroshot", "dataset": "mini-shape", "limit": 4, "attack": "pgd", "eps": 4}
    asked |= {"output": tmp_path, "jobs": 1, "progress": False}
    (first,) = bench.run(**asked, save_adversarial=True).runs
    path = first.directory / "records.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RecordsError, match="last line is torn; give its command again"):
        load_run(first.directory)
    (again,) = bench.run(**asked, save_adversarial=True).runs
    assert again.header.status == "complete"
    assert {r.key: r.score for r in again.records} == {r.key: r.score for r in first.records}
    assert (first.directory / "records.torn").read_bytes()
