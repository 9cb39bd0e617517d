"""Several processes and one run: who holds the lock, and what kills leave behind."""

import os
import platform
import signal
import subprocess
import sys
import time

import pytest

from bench.records import (
    RecordsError,
    archive_run,
    open_run,
    read_header,
    read_records,
)
from bench.records.samples import Asked, read_samples, write_samples
from tests.bench.runs import make_header, make_record, make_run

# A run of many batches of two records; prints a line after each batch. argv: directory, number of samples.
CHILD = """
import sys, time
from bench.records import open_run
from tests.bench.runs import make_header, make_record
count = int(sys.argv[2])
with open_run(sys.argv[1], make_header(n_samples=count)) as store:
    print("open", flush=True)
    for i in range(count):
        batch = [make_record(f"s{i}", "clean", 0.0, float(i)), make_record(f"s{i}", "apgd", 2.0, i / 3)]
        batch = [record for record in batch if record.key not in store.done]
        store.append(batch)
        print(i, flush=True)
        time.sleep(0.002)
    store.finish("complete")
"""


def child(directory, count=40):
    command = [sys.executable, "-c", CHILD, str(directory), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_second_process_is_told_who_holds_the_lock_and_takes_over_after_a_kill(tmp_path):
    holder = child(tmp_path, count=100_000)
    try:
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(RecordsError, match=f"locked by process {holder.pid} on {platform.node()}; wait"):
            open_run(tmp_path, make_header(n_samples=100_000))
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with open_run(tmp_path, make_header(n_samples=100_000)) as store:
        with pytest.raises(RecordsError, match=f"locked by process {os.getpid()} on"):
            open_run(tmp_path, make_header(n_samples=100_000))
        assert (tmp_path / "lock").read_text().startswith(f"process {os.getpid()} on ")
        store.append([make_record("new")])


@pytest.mark.parametrize("holder", [f"process {os.getppid()} on {platform.node()}", "process 1 on elsewhere", "\0\xff"])
def test_what_a_lock_file_says_holds_nothing(tmp_path, holder):
    """Left by a dead process whose number another program has by now, by another machine, or torn."""
    open_run(tmp_path, make_header()).close()
    (tmp_path / "lock").write_bytes(holder.encode("latin-1"))
    with open_run(tmp_path, make_header()):
        assert (tmp_path / "lock").read_text() == f"process {os.getpid()} on {platform.node()}\n"


def test_a_run_killed_again_and_again_ends_as_if_it_had_not_been(tmp_path):
    with child(tmp_path / "straight") as process:
        process.communicate()
    assert process.returncode == 0
    for lines in (0, 1, 5, 12):  # killed this many lines after opening; with 0, before anything is written
        process = child(tmp_path / "killed")
        for _ in range(lines + 1):
            process.stdout.readline()
        time.sleep(0.001 * lines)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
        assert read_header(tmp_path / "killed").status == "started"
        assert len(read_records(tmp_path / "killed")) >= 2 * lines
    with child(tmp_path / "killed") as process:
        process.communicate()
    assert process.returncode == 0
    straight, killed = ((tmp_path / name / "records.jsonl").read_bytes() for name in ("straight", "killed"))
    assert killed == straight
    assert read_header(tmp_path / "killed").status == "complete"


def test_the_showing_wing_does_not_import_torch():
    code = "import sys, bench.regression.compare, bench.tables.layouts; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_archive_does_not_say_where_the_run_was_written(tmp_path):
    config = {"output": str(tmp_path), "limit": None}
    made = make_run(tmp_path / "run", {0: [100.0], 2: [0.0]}, n_samples=1, radii=(2.0,), config=config)
    archive_run(made.directory, tmp_path / "archive")
    assert read_header(tmp_path / "archive").config == {"limit": None}


@pytest.mark.parametrize("asked", [[Asked("0", "how many ?", ("two",), ("NAT",))], []], ids=["other", "none"])
def test_an_archive_replaces_what_an_older_one_asked(tmp_path, asked):
    made = make_run(tmp_path / "run", {0: [100.0]}, n_samples=1)
    (tmp_path / "archive").mkdir()
    write_samples(tmp_path / "archive", [Asked("0", "how many ?", ("two",))])
    write_samples(made.directory, asked)
    archive_run(made.directory, tmp_path / "archive")
    assert list(read_samples(tmp_path / "archive").values()) == asked
