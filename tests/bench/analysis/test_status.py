"""`bench status`: states, failures and the time left, from files alone."""

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from bench.analysis.status import DONE, FAILED, RUNNING, STOPPED, WAITING, status
from bench.cli import main
from bench.errors import UsageError
from bench.records import RecordsError, open_run
from bench.records.shards import Shard
from bench.records.sweeps import Planned, Sweep, write_sweep
from tests.bench.runs import make_header, make_record, make_run

STEPS = [{"name": "apgd", "steps": 100}]


def begin(directory, samples=4, asked=2, attacked=1, seconds=10.0, **header):
    """A run under way: some samples asked, some attacked without success at the first of two radii."""
    store = open_run(directory, make_header(n_samples=samples, attack_steps=STEPS, **header))
    store.append(make_record(f"s{k}", seconds=0.0) for k in range(asked))
    store.append(make_record(f"s{k}", "apgd", 2.0, evaluations=100, seconds=seconds) for k in range(attacked))
    return store


def only(root):
    (state,) = status(root).states
    return state


def test_a_run_is_running_while_its_lock_is_held_and_stopped_after_a_kill(tmp_path):
    store = begin(tmp_path / "run")
    assert only(tmp_path).state == RUNNING
    store.close()
    assert only(tmp_path).state == STOPPED


def test_a_run_of_another_machine_is_running_as_long_as_it_records(tmp_path):
    begin(tmp_path / "run").close()
    (tmp_path / "run" / "lock").write_text("process 7 on another-machine\n")
    written = (tmp_path / "run" / "records.jsonl").stat().st_mtime
    assert status(tmp_path, now=lambda: written + 60).states[0].state == RUNNING
    assert status(tmp_path, now=lambda: written + 6000).states[0].state == STOPPED


def test_the_time_left_is_that_of_the_samples_that_are_not_broken_at_the_pace_so_far(tmp_path):
    """4 samples, 2 radii of 100 steps: s0 has one radius left, s1 and two unasked ones both: 700 at 0.1 s."""
    store = begin(tmp_path / "run")
    found = status(tmp_path)
    assert (found.states[0].left, found.states[0].evaluations) == (700, 100)
    assert found.seconds_left == pytest.approx(70)
    store.append([make_record("s1", "apgd", 2.0, score=0.0, evaluations=20, seconds=2.0)])  # broken: nothing is left
    assert status(tmp_path).seconds_left == pytest.approx(50)
    store.close()


def test_radii_that_a_larger_one_has_spared_a_sample_are_not_left(tmp_path):
    """s0 was left as it was at 4/255, s1 was lowered, two samples are to come: 0 + 100 + 2 * 200."""
    protocol = {"precision": "float32", "radii_order": "adaptive"}
    store = begin(tmp_path / "run", asked=2, attacked=0, protocol=protocol)
    store.append(make_record(f"s{k}", "apgd", 4.0, 100.0 - 40 * k, evaluations=100, seconds=10.0) for k in range(2))
    assert only(tmp_path).left == 500
    store.finish("complete")
    store.close()
    assert (only(tmp_path).state, only(tmp_path).left) == (DONE, 0)


def test_runs_that_go_on_side_by_side_share_the_time(tmp_path):
    stores = [begin(tmp_path / name) for name in ("a", "b")]
    assert status(tmp_path).seconds_left == pytest.approx(70)
    stores[1].close()
    assert status(tmp_path).seconds_left == pytest.approx(140)
    stores[0].close()


def planned(root, *runs):
    write_sweep(root, Sweep("2026-01-01T00:00:00+00:00", None, "here", 1, "processes", tuple(runs)))


def test_what_was_asked_for_and_has_not_begun_waits_and_takes_as_long_as_the_others(tmp_path):
    store = begin(tmp_path / "a")
    planned(tmp_path, Planned("a", 4, 200), Planned("b", 5, 200))
    found = status(tmp_path)
    assert [one.state for one in found.states] == [RUNNING, WAITING]
    assert found.seconds_left == pytest.approx(70 + 100)
    store.close()


def test_nothing_is_said_of_the_time_before_anything_was_attacked(tmp_path):
    planned(tmp_path, Planned("b", 5, 200))
    assert status(tmp_path).seconds_left is None


def test_done_and_failed_runs(tmp_path):
    make_run(tmp_path / "done", {0: [100.0], 2: [0.0]})
    make_run(tmp_path / "failed", {0: [100.0], 2: [0.0]}, status="failed")
    planned(
        tmp_path,
        Planned("done", 1, 100, "failed in an earlier try"),
        Planned("never", 1, 100, "no such file"),
    )
    states = {one.directory.name: (one.state, one.why) for one in status(tmp_path).states}
    assert states["done"] == (DONE, "")
    assert states["failed"][0] == FAILED
    assert states["never"] == (FAILED, "no such file")
    assert status(tmp_path).seconds_left == 0


def test_a_run_in_shards_is_one_run(tmp_path):
    stores = [begin(Shard(k, 2).folder(tmp_path / "run"), samples=4, asked=0, attacked=0) for k in range(2)]
    stores[0].append([make_record("s0", seconds=0.0)])
    stores[1].append([make_record("s1", seconds=0.0)])
    assert only(tmp_path).state == RUNNING
    assert only(tmp_path).asked == 2
    for store in stores:
        store.close()
    assert only(tmp_path).state == STOPPED


def test_a_damaged_run_is_named_and_hides_no_other(tmp_path):
    make_run(tmp_path / "good", {0: [100.0], 2: [0.0]})
    make_run(tmp_path / "bad", {0: [100.0], 2: [0.0]})
    (tmp_path / "bad" / "run.json").write_text("{")
    states = {one.directory.name: one for one in status(tmp_path).states}
    assert states["good"].state == DONE
    assert "run.json" in states["bad"].why
    planned(tmp_path, Planned("good", 1, 1))
    next((tmp_path / "sweeps").iterdir()).write_text("[]")
    with pytest.raises(RecordsError, match="only `bench status` reads it"):
        status(tmp_path)


@pytest.mark.parametrize("name", ["/etc", "../other", ""])
def test_a_note_that_leaves_its_folder_is_refused(tmp_path, name):
    planned(tmp_path, Planned(name, 1, 1))
    with pytest.raises(UsageError, match=r"sweeps: the run"):
        status(tmp_path)


def test_the_command_says_it_in_lines_and_in_json_and_exits_with_1_after_a_failure(tmp_path):
    store = begin(tmp_path / "a")
    said = CliRunner().invoke(main, ["status", str(tmp_path)])
    assert said.exit_code == 0
    assert said.output.splitlines()[0].startswith("running    12%  a  last record ")
    assert said.output.splitlines()[-1] == "1 run: 1 running; about 1 min 10 s left"
    store.finish("failed")
    store.close()
    said = CliRunner().invoke(main, ["status", str(tmp_path), "--json"])
    assert said.exit_code == 1
    assert json.loads(said.output)["runs"][0]["state"] == FAILED
    (tmp_path / "empty").mkdir()
    said = CliRunner().invoke(main, ["status", str(tmp_path / "empty")])
    assert said.exit_code == 2
    assert "make some with `bench run`" in said.output


def test_a_held_lock_is_seen_from_another_process(tmp_path):
    store = begin(tmp_path / "run")
    code = "import sys, pathlib; from bench.analysis.status import status; "
    code += "print(status(pathlib.Path(sys.argv[1])).states[0].state)"
    words = [sys.executable, "-c", code, str(tmp_path)]
    assert subprocess.run(words, capture_output=True, text=True, check=True, env=os.environ).stdout.strip() == RUNNING
    store.close()


def test_a_run_that_was_finished_after_its_sweep_noted_a_failure_is_done(tmp_path):
    store = begin(tmp_path / "a")
    store.close()
    planned(tmp_path, Planned("a", 4, 200, "a worker process was killed"))
    assert only(tmp_path).state == FAILED
    with open_run(tmp_path / "a", make_header(n_samples=4, attack_steps=STEPS)) as again:
        again.finish("complete")
    assert only(tmp_path).state == DONE
