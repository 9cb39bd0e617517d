"""Torn lines, damaged headers, full disks and places that cannot be written."""

import errno
import os
import pathlib

import pytest

from bench.records import (
    RecordsError,
    open_run,
    read_header,
    read_records,
)
from tests.bench.runs import make_header, make_record


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
