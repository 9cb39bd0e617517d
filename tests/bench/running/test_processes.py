"""Several runs at once: however the command ends, no process is left that holds what the next command needs."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from bench.cli import main
from bench.records import find_runs, load_run, open_run
from tests.commands import start

# At 2/255 no image falls, so that both runs last.
COMMAND = "run --encoder fare2,fare4 --task stealth --eps 2 --limit 6 --jobs 2 --device cpu --quiet"


@pytest.fixture
def begun(tmp_path):
    """A command that carries out two runs in two processes, both at work; and the processes."""
    command = start(_give_in_own_session, *COMMAND.split(), "--output", str(tmp_path))

    def at_work():
        assert command.poll() is None, command.stderr
        return len([path for path in tmp_path.rglob("records.jsonl") if path.stat().st_size]) == 2

    _until(at_work)
    workers = [int((d / "lock").read_text().split()[1]) for d in find_runs(tmp_path)]
    assert len({command.pid, *workers}) == 3
    yield command, workers, tmp_path
    for pid in (command.pid, *workers):
        if _alive(pid):
            os.kill(pid, signal.SIGKILL)
    command.wait()


def _give_in_own_session(*words):
    """As a terminal does, whose Ctrl-C reaches a command and all that it began."""
    os.setsid()
    main(words)


def _until(true, patience=240.0):
    deadline = time.monotonic() + patience
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _alive(pid):
    """Whether a process runs: one that has ended but that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _session_of(command):
    """All processes that a command has begun: it has a session of its own."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            if os.getsid(int(path.name)) == command.pid:
                found.append(int(path.name))
    return found


def test_the_workers_of_a_killed_command_die_with_it_and_free_their_locks(begun):
    command, workers, output = begun
    command.send(signal.SIGKILL)
    command.wait()
    _until(lambda: not any(map(_alive, _session_of(command))), 30)
    assert not any(map(_alive, workers))
    for directory in find_runs(output):
        header = load_run(directory).header
        assert header.status == "started"
        with open_run(directory, header) as store:
            assert store.done


def test_ctrl_c_ends_all_processes_and_marks_their_runs(begun):
    command, workers, output = begun
    os.killpg(command.pid, signal.SIGINT)
    assert command.wait() != 0
    assert not any(map(_alive, workers))
    _until(lambda: not any(map(_alive, _session_of(command))), 30)
    assert {load_run(directory).header.status for directory in find_runs(output)} == {"partial"}
    assert "Traceback" not in command.stderr
