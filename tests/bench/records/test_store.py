import dataclasses
import errno
import json
import math
import os
import pathlib
import platform
import signal
import subprocess
import sys
import time

import msgspec
import pytest

from bench.provenance import SOURCES, code_state, source_digest
from bench.records import (
    ADDED,
    IDENTITY,
    Record,
    RecordsError,
    RunHeader,
    find_runs,
    open_run,
    read_header,
    read_records,
)
from tests.bench.runs import make_header, make_record

ROOT = pathlib.Path(__file__).parents[3]

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


def same(a: float | None, b: float | None) -> bool:
    return a == b or (a is not None and b is not None and math.isnan(a) and math.isnan(b))


# ---- one record, one header ------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [1.5, math.nan, math.inf, -math.inf, None, 5e-324, 0.1 + 0.2])
def test_a_record_survives_the_round_trip_with_its_loss(loss):
    record = make_record(loss=loss, prediction='"\n\u2028 é \ud800 \U0001f600')
    line = record.to_json()
    assert "\n" not in line
    assert line.isascii()
    back = Record.from_json(line)
    assert same(back.loss, loss)
    assert msgspec.structs.replace(back, loss=0.0) == msgspec.structs.replace(record, loss=0.0)


def test_nan_is_written_as_a_word_never_as_null_or_zero():
    assert json.loads(make_record(loss=math.nan).to_json())["loss"] == "nan"
    assert json.loads(make_record(loss=-math.inf).to_json())["loss"] == "-inf"
    assert Record.from_json(make_record(prediction="nan").to_json()).prediction == "nan"


def test_bare_nan_in_a_file_is_refused():
    line = make_record(loss=math.nan).to_json().replace('"nan"', "NaN")
    with pytest.raises(RecordsError, match="bare NaN"):
        Record.from_json(line)


@pytest.mark.parametrize("cls", [Record, RunHeader])
def test_every_key_is_needed_and_no_other_is_known(cls):
    text = (make_record() if cls is Record else make_header()).to_json()
    names = Record.__struct_fields__ if cls is Record else [field.name for field in dataclasses.fields(cls)]
    for name in set(names) - {*ADDED, "png_score", "loss_curve"}:
        data = json.loads(text)
        del data[name]
        with pytest.raises(RecordsError, match=f"missing key {name}"):
            cls.from_json(json.dumps(data))
    with pytest.raises(RecordsError, match="unknown key colour"):
        cls.from_json(json.dumps(json.loads(text) | {"colour": 1}))


@pytest.mark.parametrize(
    "changes",
    [
        {"score": None},
        {"score": math.nan},
        {"score": "100"},
        {"sample_id": 7},
        {"radius": -1.0, "step": "apgd"},
        {"radius": math.nan, "step": "apgd"},
        {"radius": 2.0, "step": "clean"},
        {"evaluations": 1.5},
        {"error": False},
        {"seconds": None},
    ],
)
def test_a_record_that_makes_no_sense_is_refused(changes):
    with pytest.raises(RecordsError, match=next(iter(changes))):
        make_record(**changes)


def test_an_error_row_needs_no_score():
    assert Record.from_json(make_record(score=None, error="NaN in the loss").to_json()).score is None
    assert math.isnan(Record.from_json(make_record(score=math.nan, error="NaN").to_json()).score)


def test_a_header_survives_the_round_trip():
    header = make_header(limit=5, radii=(0.5, 4.0), checks=[{"name": "a", "ok": True, "detail": "é"}])
    assert RunHeader.from_json(header.to_json()) == header
    assert RunHeader.from_json(make_header(protocol={"x": math.nan}).to_json()).protocol == {"x": "nan"}


@pytest.mark.parametrize("changes", [{"schema_version": 3}, {"worst": "most"}, {"status": "done"}, {"radii": (-1.0,)}])
def test_a_header_that_makes_no_sense_is_refused(changes):
    with pytest.raises(RecordsError, match=next(iter(changes))):
        make_header(**changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"status": "complete"}, None),
        ({"status": "complete", "limit": 5}, "--limit 5"),
        ({"status": "started"}, "status started"),
        ({"status": "partial"}, "status partial"),
        ({"status": "failed"}, "status failed"),
    ],
)
def test_what_makes_a_run_partial(changes, reason):
    assert make_header(**changes).partial == reason


# ---- the store -------------------------------------------------------------------------------------------


def test_what_was_appended_is_read_back_in_order(tmp_path):
    wanted = [make_record("s1"), make_record("s0"), make_record("s0", "apgd", 2.0, 0.0)]
    with open_run(tmp_path / "deep" / "run", make_header()) as store:
        store.append(wanted[:2])
        store.append([])
        store.append(wanted[2:])
        assert store.done == {record.key for record in wanted}
        store.finish("complete", [{"name": "masking", "ok": True, "detail": ""}])
    assert read_records(tmp_path / "deep" / "run") == wanted
    header = read_header(tmp_path / "deep" / "run")
    assert (header.status, header.checks[0]["name"]) == ("complete", "masking")
    assert header.ended is not None
    assert find_runs(tmp_path) == [tmp_path / "deep" / "run"]


def test_find_runs_sorts_and_needs_a_directory(tmp_path):
    for name in ("b", "a/x", "c"):
        open_run(tmp_path / name, make_header()).close()
    assert find_runs(tmp_path) == [tmp_path / "a" / "x", tmp_path / "b", tmp_path / "c"]
    with pytest.raises(RecordsError, match="nowhere"):
        find_runs(tmp_path / "nowhere")


def test_an_error_row_gives_way_to_a_later_record_and_counts_as_undone(tmp_path):
    failed, good = make_record(score=None, error="out of memory"), make_record(score=50.0)
    with open_run(tmp_path, make_header()) as store:
        store.append([failed, failed])
        assert store.done == frozenset()
        assert read_records(tmp_path) == [failed]
        store.append([good])
    assert read_records(tmp_path) == [good]


def test_a_key_cannot_be_recorded_twice(tmp_path):
    with open_run(tmp_path, make_header()) as store:
        store.append([make_record(score=1.0)])
        for late in (make_record(score=2.0), make_record(score=None, error="late")):
            with pytest.raises(RecordsError, match="already recorded"):
                store.append([make_record("s9"), late])
        with pytest.raises(RecordsError, match="already recorded"):
            store.append([make_record("s9"), make_record("s9")])
    assert read_records(tmp_path) == [make_record(score=1.0)]
    with (tmp_path / "records.jsonl").open("a") as file:
        file.write(make_record(score=2.0).to_json() + "\n")
    with pytest.raises(RecordsError, match=r"records.jsonl, line 2: .* recorded twice"):
        read_records(tmp_path)


@pytest.mark.parametrize("name", IDENTITY)
def test_resuming_another_run_is_refused_naming_the_field_and_both_values(tmp_path, name, monkeypatch):
    open_run(tmp_path, make_header()).close()
    stored = (tmp_path / "run.json").read_bytes()
    if name == "schema_version":
        monkeypatch.setattr("bench.records.header.SCHEMA_VERSION", 3)
        with pytest.raises(RecordsError, match="schema_version is 2"):
            open_run(tmp_path, make_header(schema_version=3))
        return
    old = getattr(make_header(), name)
    new = {
        "worst": "max",
        "radii": (2.0, 8.0),
        "weights": {"encoder": "cd34"},
        "attack_steps": [],
        "protocol": {"precision": "bfloat16"},
        "limit": 3,
        "ceiling": 1.0,
    }.get(name, old + 1 if isinstance(old, int) else f"{old}x")
    with pytest.raises(RecordsError, match=f"{name} is .* there and .* here") as caught:
        open_run(tmp_path, make_header(**{name: new}))
    shown = list(new) if isinstance(new, tuple) else new
    assert repr(shown) in str(caught.value)
    assert (tmp_path / "run.json").read_bytes() == stored
    open_run(tmp_path, make_header()).close()  # the refusal gave the lock back


def test_another_device_or_batch_size_resumes_and_other_packages_are_noted_once(tmp_path):
    open_run(tmp_path, make_header()).close()
    open_run(tmp_path, make_header(device="H100", started="later", config={"batch_size": 7, "device": "cuda"})).close()
    assert read_header(tmp_path) == make_header()
    for _ in range(2):
        open_run(tmp_path, make_header(packages={"numpy": "3.0"})).close()
    (check,) = read_header(tmp_path).checks
    assert not check["ok"]
    assert "2.0" in check["detail"]
    assert "3.0" in check["detail"]
    assert read_header(tmp_path).packages == {"numpy": "2.0"}


COMMIT = {"commit": "0123abc", "dirty": False}


@pytest.mark.parametrize(
    ("stored", "asked", "refused"),
    [
        (COMMIT, COMMIT, False),
        (COMMIT, {"commit": "fffffff", "dirty": False}, True),
        (COMMIT, {"commit": "0123abc", "dirty": True}, True),
        (COMMIT, COMMIT | {"source": "aa"}, False),  # begun before digests were kept
        (COMMIT | {"source": "aa"}, COMMIT | {"source": "bb"}, True),  # two states of one dirty tree
        (COMMIT | {"source": "aa"}, {"commit": "fffffff", "dirty": True, "source": "aa"}, False),  # documents changed
        ({"commit": None, "dirty": None, "source": "aa"}, COMMIT | {"source": "aa"}, False),
        ({"commit": None, "dirty": None, "source": "aa"}, {"commit": None, "dirty": None, "source": "bb"}, True),
    ],
)
def test_other_code_is_refused_by_what_it_is_not_by_what_its_commit_is_called(tmp_path, stored, asked, refused):
    open_run(tmp_path, make_header(code=stored)).close()
    if not refused:
        open_run(tmp_path, make_header(code=asked)).close()
        return
    with pytest.raises(RecordsError, match=r"holds another run: code is .* there and .* here\. Use --force"):
        open_run(tmp_path, make_header(code=asked))
    assert read_header(tmp_path).code == stored


def test_the_code_digest_sees_contents_names_and_new_files_and_nothing_else(tmp_path):
    for package in SOURCES:
        (tmp_path / package / "deep").mkdir(parents=True)
        (tmp_path / package / "deep" / "a.py").write_text("1")
    digests = [source_digest(tmp_path)]
    (tmp_path / "README.md").write_text("x")
    (tmp_path / "bench" / "data.bin").write_text("x")
    assert source_digest(tmp_path) == digests[0]
    for path, text in (("tasks/deep/a.py", "2"), ("bench/b.py", ""), ("bench/suite.toml", "x = 1")):
        (tmp_path / path).write_text(text)
        digests.append(source_digest(tmp_path))
    (tmp_path / "bench/b.py").rename(tmp_path / "bench/c.py")
    digests.append(source_digest(tmp_path))
    assert len(set(digests)) == len(digests)
    assert code_state()["source"] == source_digest(ROOT)


def test_results_in_a_checkout_do_not_make_its_code_dirty(tmp_path, monkeypatch):
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "a.py").write_text("")
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a", "commit", "-qm", "a"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    monkeypatch.setattr("bench.provenance.ROOT", tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "records.jsonl").write_text("{}")
    assert code_state.__wrapped__()["dirty"] is False
    (tmp_path / "bench" / "b.py").write_text("")
    assert code_state.__wrapped__()["dirty"] is True


def test_force_begins_beside_the_other_run_and_resumes_there_the_next_time(tmp_path):
    first, other, third = make_header(), make_header(seed=1), make_header(seed=2)
    with open_run(tmp_path / "run", first, force=True) as store:
        assert store.directory == tmp_path / "run"
    before = (tmp_path / "run" / "run.json").read_bytes()
    with open_run(tmp_path / "run", other, force=True) as store:
        assert store.directory == tmp_path / "run.2"
        store.append([make_record()])
    with open_run(tmp_path / "run", third, force=True) as store:
        assert store.directory == tmp_path / "run.3"
    with open_run(tmp_path / "run", other, force=True) as store:
        assert store.directory == tmp_path / "run.2"
        assert store.done == {make_record().key}
    assert (tmp_path / "run" / "run.json").read_bytes() == before
    (tmp_path / "run" / "run.json").write_text("damaged")
    (tmp_path / "run.2" / "run.json").unlink()  # records without a header
    with open_run(tmp_path / "run", first, force=True) as store:
        assert store.directory == tmp_path / "run.4"


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, "partial"), (MemoryError, "failed")])
def test_a_run_cut_short_keeps_what_was_computed_and_says_so(tmp_path, error, status):
    def cut_short():
        with open_run(tmp_path, make_header()) as store:
            store.append([make_record("s0")])
            raise error

    with pytest.raises(error):
        cut_short()
    header = read_header(tmp_path)
    assert header.status == status
    assert header.ended is not None
    assert read_records(tmp_path) == [make_record("s0")]
    with open_run(tmp_path, make_header()) as store:
        assert store.done == {make_record("s0").key}
        assert read_header(tmp_path).status == "started"
        store.finish("complete")


def test_ctrl_c_while_records_are_written_loses_none_of_them(tmp_path, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    def interrupted():
        with open_run(tmp_path, make_header()) as store:
            monkeypatch.setattr(os, "fsync", interrupt)
            try:
                store.append([make_record("s0")])
            finally:
                monkeypatch.undo()

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert read_records(tmp_path) == [make_record("s0")]
    assert read_header(tmp_path).status == "partial"


def test_an_error_after_the_end_does_not_unmake_a_complete_run(tmp_path):
    def fail_late():
        with open_run(tmp_path, make_header()) as store:
            store.finish("complete")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_late()
    assert read_header(tmp_path).status == "complete"


def test_a_failed_run_is_started_again_and_a_complete_one_stays_complete_until_appended_to(tmp_path):
    with open_run(tmp_path, make_header()) as store:
        store.finish("failed")
    with open_run(tmp_path, make_header()) as store:
        assert read_header(tmp_path).status == "started"
        store.finish("complete")
    with open_run(tmp_path, make_header()) as store:
        assert read_header(tmp_path).status == "complete"
        store.append([make_record()])
        assert read_header(tmp_path).status == "started"
        assert read_header(tmp_path).ended is None


def test_records_without_a_header_are_not_adopted(tmp_path):
    (tmp_path / "records.jsonl").write_text(make_record().to_json() + "\n")
    with pytest.raises(RecordsError, match=r"no run\.json"):
        open_run(tmp_path, make_header())


# ---- damage ----------------------------------------------------------------------------------------------


def test_a_last_line_torn_at_any_byte_loses_that_record_only(tmp_path):
    kept, torn = make_record("s0"), make_record("s1", prediction="é")
    with open_run(tmp_path, make_header()) as store:
        store.append([kept])
    whole, line = (tmp_path / "records.jsonl").read_bytes(), torn.to_json().encode()
    for cut in range(1, len(line) + 1):
        (tmp_path / "records.jsonl").write_bytes(whole + line[:cut])
        (tmp_path / "records.torn").unlink(missing_ok=True)
        assert read_records(tmp_path) == [kept]  # a reader changes nothing
        assert (tmp_path / "records.jsonl").read_bytes() == whole + line[:cut]
        with open_run(tmp_path, make_header()) as store:
            assert store.done == {kept.key}
        assert (tmp_path / "records.jsonl").read_bytes() == whole
        assert (tmp_path / "records.torn").read_bytes() == line[:cut] + b"\n"


def test_a_torn_complete_run_is_refused_until_it_is_resumed_and_is_then_not_complete(tmp_path):
    with open_run(tmp_path, make_header()) as store:
        store.append([make_record("s0"), make_record("s1")])
        store.finish("complete")
    path = tmp_path / "records.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(RecordsError, match="torn"):
        read_records(tmp_path)
    open_run(tmp_path, make_header()).close()
    assert read_records(tmp_path) == [make_record("s0")]
    assert read_header(tmp_path).status == "started"


def test_damage_before_the_last_line_is_never_skipped(tmp_path):
    with open_run(tmp_path, make_header()) as store:
        store.append([make_record(f"s{i}") for i in range(3)])
    path = tmp_path / "records.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1][5:] + lines[2])
    for reader in (read_records, lambda directory: open_run(directory, make_header())):
        with pytest.raises(RecordsError, match=r"records\.jsonl, line 2: not JSON"):
            reader(tmp_path)


def test_a_damaged_header_names_its_file(tmp_path):
    open_run(tmp_path, make_header()).close()
    (tmp_path / "run.json").write_text("<html>")
    with pytest.raises(RecordsError, match=r"run\.json: not JSON"):
        read_header(tmp_path)
    with pytest.raises(RecordsError, match=r"cannot read .*absent.*No such file"):
        read_header(tmp_path / "absent")


def test_a_failed_replace_leaves_the_old_header_and_no_litter(tmp_path, monkeypatch):
    store = open_run(tmp_path, make_header())
    before = (tmp_path / "run.json").read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RecordsError, match=r"run\.json: No space left on device \(free space"):
        store.finish("complete")
    assert (tmp_path / "run.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "records.jsonl", "run.json"]
    assert store.header.status == "started"
    store.close()


@pytest.mark.parametrize("stage", ["write", "fsync"])
def test_a_full_disk_takes_the_whole_batch_back(tmp_path, monkeypatch, stage):
    store = open_run(tmp_path, make_header())
    store.append([make_record("s0")])
    write = os.write

    def short_write(descriptor, content):
        return write(descriptor, content[: len(content) // 2])

    def failing_fsync(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, stage, short_write if stage == "write" else failing_fsync)
    with pytest.raises(RecordsError, match=r"records\.jsonl"):
        store.append([make_record("s1"), make_record("s2")])
    monkeypatch.undo()
    assert read_records(tmp_path) == [make_record("s0")]
    store.append([make_record("s1")])
    assert read_records(tmp_path) == [make_record("s0"), make_record("s1")]
    store.close()


def test_a_place_that_cannot_be_written_is_named_with_a_remedy(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordsError, match=r"cannot create .*file/run"):
        open_run(tmp_path / "file" / "run", make_header())

    def refuse(*_args, **_kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(pathlib.Path, "mkdir", refuse)
    with pytest.raises(RecordsError, match=r"Permission denied .*choose another output directory"):
        open_run(tmp_path / "run", make_header())


# ---- other processes -------------------------------------------------------------------------------------


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
    code = "import sys, bench.regression.compare, bench.tables.flat; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
