"""The one writer: what is appended is read back, another run is refused, and a run cut short says so."""

import os

import pytest

from bench.records import (
    IDENTITY,
    RecordsError,
    find_runs,
    open_run,
    read_header,
    read_records,
)
from tests.bench.runs import make_header, make_record


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
        "norm": "l2",
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


def test_a_run_in_another_order_of_radii_is_refused_with_the_option_that_makes_one_like_it(tmp_path):
    """As one that began when ascending was the default, and has the name that an adaptive one has now."""
    open_run(tmp_path, make_header()).close()
    adaptive = make_header(protocol={"precision": "float32", "radii_order": "adaptive"})
    words = "in the order 'ascending', and now the order is 'adaptive': --radii-order ascending makes a run as that one"
    with pytest.raises(RecordsError, match=words):
        open_run(tmp_path, adaptive)
    assert read_header(tmp_path) == make_header()
    with open_run(tmp_path, adaptive, force=True) as beside:
        assert beside.directory.name == f"{tmp_path.name}.2"


def test_a_chosen_order_is_kept_when_the_run_goes_on(tmp_path):
    with open_run(tmp_path, make_header()) as store:
        store.choose_order("descending")
    with open_run(tmp_path, make_header()) as store:
        assert store.header.chosen_order == "descending"


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
