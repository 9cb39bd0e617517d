"""Ray and submitit for real, on this machine: the default engine's records, though a worker is killed in mid-run."""

import os
import signal
import threading
import time

import pytest

from bench.config import Request, resolve
from bench.errors import UsageError
from bench.records import load_run
from bench.running.engines import execute_all, make_engine
from tests.bench.toy_runs import bare

pytestmark = pytest.mark.engines
TWO = {"encoder": "fare2,fare4", "task": "zeroshot", "dataset": "mini-shape", "eps": 2, "limit": 6, "batch_size": 1}


@pytest.fixture(scope="module")
def wanted(tmp_path_factory):
    """What the runs record in this process."""
    return carry_out(tmp_path_factory.mktemp("inline"), "inline")


def carry_out(output, on, **more):
    configs = resolve(Request.of(output=output, device="cpu", **TWO, **more))
    return [load_run(directory) for directory in execute_all(configs, jobs=2, progress=False, on=on)]


def kill_in_mid_run(output, killed, patience=300.0):
    """End the process of a run that has recorded something and not ended."""
    until = time.monotonic() + patience
    while not killed and time.monotonic() < until:
        for path in output.rglob("records.jsonl"):
            pid = int((path.parent / "lock").read_text().split()[1])
            if path.stat().st_size and pid != os.getpid():
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                break
        time.sleep(0.02)


@pytest.mark.parametrize("on", ["ray", "slurm?cluster=local&cpus=1&time=20"])
@pytest.mark.parametrize("more", [{}, {"shards": 2}], ids=["whole", "in shards"])
def test_a_killed_worker_costs_no_record(tmp_path, wanted, on, more):
    killed = []
    killer = threading.Thread(target=kill_in_mid_run, args=(tmp_path, killed))
    killer.start()
    found = carry_out(tmp_path, on, **more)
    killer.join()
    assert len(killed) == 1
    assert [bare(run.records) for run in found] == [bare(run.records) for run in wanted]
    losses = [[sorted((r.sample_id, r.step, r.loss or 0.0) for r in run.records) for run in runs]
              for runs in (found, wanted)]  # fmt: skip
    assert losses[0] == losses[1]
    assert all(run.header.status == "complete" for run in found)


@pytest.mark.parametrize("on", ["ray", "slurm?cluster=local&cpus=1"])
def test_what_is_wrong_with_a_run_comes_back_as_its_error(tmp_path, on):
    configs = resolve(Request.of(output=tmp_path, encoder="clip", task="vqa", vlm="./nowhere", device="cpu"))
    with pytest.raises(UsageError, match="no such model folder"):
        execute_all(configs, jobs=1, progress=False, on=on)


@pytest.mark.parametrize(
    ("on", "message"),
    [
        ("ray?cores=2", "unknown option of --on ray 'cores'; .*known: address, cpus, gpus"),
        ("ray?cpus=none", "--on ray: cpus is a whole number from 1, not 'none'"),
        ("ray?gpus=-1", "--on ray: gpus is a number from 0, not '-1'"),
        ("slurm?cluster=lokal", "unknown cluster of --on slurm 'lokal'; did you mean 'local'"),
        ("slurm?time=1h", "--on slurm: time is a whole number from 1, not '1h'"),
        ("slurm:host", "unknown option of --on slurm 'address'"),
        ("processes?cpus=2", "unknown option of --on processes 'cpus'; known: none"),
    ],
)
def test_an_option_that_an_engine_does_not_take_is_named(on, message):
    with pytest.raises(UsageError, match=message):
        make_engine(on, None, False)


def test_an_engine_whose_package_is_absent_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UsageError, match=r"--on ray needs the package ray: pip install 'robust-vlm-bench\[ray\]'"):
        make_engine("ray", None, False)


def test_no_slurm_here_is_said_with_a_way_to_try_it(tmp_path):
    configs = resolve(Request.of(output=tmp_path, encoder="clip", task="zeroshot", dataset="mini-shape"))
    with pytest.raises(UsageError, match="no Slurm on this machine"):
        execute_all(configs, progress=False, on="slurm?partition=gpu")
