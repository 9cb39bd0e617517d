"""A run in shards: the same records as in one piece, whatever the order, and whatever dies on the way."""

import json
import os
import shutil
from dataclasses import replace

import msgspec
import pytest

from attacks.presets import PRESETS, Preset
from bench.config import Request, RunConfig, resolve
from bench.errors import UsageError
from bench.records import RecordsError, find_runs, load_run
from bench.records import joining as files
from bench.records.images import saved_paths
from bench.records.shards import Shard
from bench.running import load, loop, shards
from tasks.zeroshot import ZeroShot
from tests.bench.toy_runs import RADIUS, make_setup, short

FEW, RADII = 8, (RADIUS / 2, RADIUS)


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """What survives a power loss is tested elsewhere."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def toy(monkeypatch):
    """Two steps, the second from the worst image so far, on a task whose whole dataset the join sees."""
    steps = [short("apgd", 6)[0], replace(short("apgd", 6)[0], name="again", start="best")]
    monkeypatch.setitem(PRESETS, "toy", Preset("", tuple(steps)))
    setup = make_setup("toy", eps=RADII)
    task = ZeroShot(replace(setup.task.dataset, samples=setup.samples[:FEW]))
    setup = replace(
        setup,
        task=task,
        images=replace(setup.images, pixels=setup.images.pixels[:FEW]),
        header=replace(setup.header, n_samples=FEW),
    )
    monkeypatch.setattr(load, "load_task", lambda config: task)
    return setup


def config(output, **changes):
    common = {"suite": "mini", "encoder": "toy", "task": "zeroshot", "dataset": "toy", "samples": FEW, "norm": "linf"}
    common |= {"attack": "toy", "eps": RADII, "seed": 0, "device": "cpu", "batch_size": 1, "save_adversarial": True}
    return RunConfig(**common | {"output": output} | changes)


def carry_out(setup, whole, order=None):
    """A run in its parts, joined."""
    parts = shards.split(whole)
    for part in [parts[k] for k in order or range(len(parts))]:
        loop.carry_out(part, setup)
    return load_run(shards.join(parts) if parts[0].shard else whole.directory)


def bare(records):
    """All of them but the seconds, by sample and in order."""
    return sorted((msgspec.structs.replace(r, seconds=0.0) for r in records), key=lambda r: r.sample_id)


def images(directory):
    folder = directory / "adversarial"
    found = [*(path for _, path in saved_paths(folder)), *folder.rglob("*.png")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.mark.parametrize(("count", "order"), [(3, (2, 0, 1)), (FEW + 2, None)])
def test_shards_in_any_order_are_the_run_in_one_piece_to_the_bit(toy, tmp_path, count, order):
    one = carry_out(toy, config(tmp_path / "one"))
    many = carry_out(toy, config(tmp_path / "many", shards=count), order)
    assert bare(many.records) == bare(one.records)
    assert images(many.directory) == images(one.directory) != {}
    assert (many.directory / "samples.jsonl").read_bytes() == (one.directory / "samples.jsonl").read_bytes()
    same = {"started": "", "ended": "", "config": {}, "checks": []}
    assert replace(many.header, **same) == replace(one.header, **same)
    assert {c["name"]: c["ok"] for c in many.header.checks} == {c["name"]: c["ok"] for c in one.header.checks}
    assert sorted(path.name for path in many.directory.iterdir()) == sorted(
        path.name for path in one.directory.iterdir()
    )


def test_no_shard_is_empty(tmp_path):
    parts = shards.split(config(tmp_path, shards=10**6))
    assert [part.shard for part in parts] == [Shard(number, FEW) for number in range(FEW)]


def test_the_size_of_batches_changes_no_answer_of_a_run_in_shards(toy, tmp_path):
    one = carry_out(toy, config(tmp_path / "one", batch_size=None))
    many = carry_out(toy, config(tmp_path / "many", batch_size=None, shards=3))
    assert bare(msgspec.structs.replace(r, loss=None, loss_curve=None) for r in many.records) == bare(
        msgspec.structs.replace(r, loss=None, loss_curve=None) for r in one.records
    )


def test_until_it_is_joined_a_run_is_the_union_of_its_shards(toy, tmp_path):
    parts = shards.split(config(tmp_path, shards=3))
    loop.carry_out(parts[0], toy)
    first = load_run(parts[0].directory)
    loop.carry_out(parts[2], toy)
    both = load_run(parts[0].directory)
    assert find_runs(tmp_path) == [both.directory]
    assert (both.header.status, both.header.partial) == ("started", "status started")
    assert {r.sample_id for r in first.records} == {f"s{k:02d}" for k in range(0, FEW, 3)}
    assert {r.sample_id for r in both.records} == {f"s{k:02d}" for k in range(FEW) if k % 3 != 1}


def test_a_shard_that_was_killed_goes_on_where_it_stopped(toy, tmp_path, monkeypatch):
    one = carry_out(toy, config(tmp_path / "one"))
    whole = config(tmp_path / "many", shards=2)
    parts = shards.split(whole)
    path = parts[1].folder / "records.jsonl"

    class KillError(BaseException):
        """Stands for SIGKILL: no handler may see it."""

    appended = []

    def append(store, records, real=loop.RunStore.append):
        real(store, records)
        appended.extend(records)
        if len(appended) == 6:
            raise KillError

    with monkeypatch.context() as killed:
        killed.setattr(loop.RunStore, "append", append)
        with pytest.raises(KillError):
            loop.carry_out(parts[1], toy)
    path.write_bytes(path.read_bytes()[:-30])  # in the middle of a line
    kept = len(path.read_bytes().splitlines()) - 1
    done = []
    with monkeypatch.context() as counted:
        counted.setattr(loop.RunStore, "append", lambda s, r, real=loop.RunStore.append: (done.extend(r), real(s, r)))
        loop.carry_out(parts[1], toy)
    assert kept + len(done) == len(load_run(parts[1].folder).records)
    loop.carry_out(parts[0], toy)
    assert bare(load_run(shards.join(parts)).records) == bare(one.records)


@pytest.mark.parametrize("moment", [1, 2, 3, 4, 5])
def test_a_join_that_was_killed_is_carried_out_by_the_next_command(toy, tmp_path, monkeypatch, moment):
    """It dies before each of its steps: moving images, samples.jsonl, records.jsonl, run.json, deleting the shards."""
    one = carry_out(toy, config(tmp_path / "one"))
    whole = config(tmp_path / "many", shards=2)
    parts = shards.split(whole)
    for part in parts:
        loop.carry_out(part, toy)
    steps = []

    def dying(step):
        def act(*arguments):
            steps.append(step)
            if len(steps) == moment:
                raise MemoryError
            return step(*arguments)

        return act

    with monkeypatch.context() as killed:
        for name in ("_move_images", "write_atomically", "_delete"):
            killed.setattr(files, name, dying(getattr(files, name)))
        with pytest.raises(MemoryError):
            shards.join(parts)
    again = carry_out(toy, whole)
    assert bare(again.records) == bare(one.records)
    assert images(again.directory) == images(one.directory)
    assert not (again.directory / "shards").exists()
    assert again.header.status == "complete"


def test_a_sample_in_two_shards_is_refused(toy, tmp_path):
    parts = shards.split(config(tmp_path, shards=2))
    for part in parts:
        loop.carry_out(part, toy)
    first, second = (part.folder / "records.jsonl" for part in parts)
    with second.open("a") as file:
        file.write(first.read_text().splitlines()[0] + "\n")
    for read in (lambda: load_run(parts[0].directory), lambda: shards.join(parts)):
        with pytest.raises(RecordsError, match=r"sample 's00' is recorded in both \S+0-of-2 and \S+1-of-2; delete one"):
            read()
    assert not (parts[0].directory / "run.json").exists()


def test_a_shard_of_another_run_is_refused(toy, tmp_path):
    parts = shards.split(config(tmp_path, shards=2))
    for part in parts:
        loop.carry_out(part, toy)
    path = parts[1].folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seed": 7}))
    with pytest.raises(RecordsError, match=r"1-of-2 is a shard of another run than .*: seed is 7 there and 0 here"):
        shards.join(parts)


def test_a_shard_that_is_being_written_is_not_joined(toy, tmp_path):
    parts = shards.split(config(tmp_path, shards=2))
    for part in parts:
        loop.carry_out(part, toy)
    setup = replace(toy, header=load_run(parts[1].folder).header)
    with loop.open_run(parts[1].folder, setup.header), pytest.raises(RecordsError, match=f"process {os.getpid()}"):
        shards.join(parts)


def test_a_run_goes_on_in_as_many_parts_as_it_was_begun_in(toy, tmp_path):
    begun = config(tmp_path / "shards", shards=3)
    loop.carry_out(shards.split(begun)[1], toy)
    for count in (None, 2, 3):
        assert [part.shard for part in shards.split(replace(begun, shards=count))] == [Shard(k, 3) for k in range(3)]
    whole = config(tmp_path / "whole")
    loop.carry_out(whole, toy)
    assert shards.split(replace(whole, shards=4)) == [replace(whole, shards=4)]
    assert shards.split(replace(whole, shards=1, output=tmp_path / "new"))[0].shard is None


def test_what_cannot_go_on_is_refused(toy, tmp_path):
    whole = config(tmp_path, shards=2)
    with pytest.raises(UsageError, match="--force cannot begin shards"):
        shards.split(replace(whole, force=True))
    loop.carry_out(shards.split(whole)[0], toy)
    shutil.copytree(whole.directory / "shards" / "0-of-2", whole.directory / "shards" / "0-of-3")
    with pytest.raises(RecordsError, match="shards of different counts"):
        shards.split(whole)
    shutil.rmtree(whole.directory / "shards" / "0-of-3")
    loop.carry_out(replace(whole, shards=None, limit=None, output=tmp_path / "other"), toy)
    shutil.copy(tmp_path / "other" / whole.directory.relative_to(tmp_path) / "run.json", whole.directory)
    (whole.directory / "records.jsonl").write_text("")
    with pytest.raises(RecordsError, match=r"run\.json is complete|is a run in one piece, and \S+0-of-2 another part"):
        shards.split(whole)


def test_a_link_among_the_shards_is_not_followed(toy, tmp_path):
    whole = config(tmp_path / "runs", shards=2)
    (tmp_path / "elsewhere").mkdir()
    whole.directory.mkdir(parents=True)
    (whole.directory / "shards").symlink_to(tmp_path / "elsewhere")
    for write_or_read in (lambda: loop.carry_out(shards.split(whole)[0], toy), lambda: load_run(whole.directory)):
        with pytest.raises(RecordsError, match="is a link"):
            write_or_read()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_metric_over_the_dataset_sees_all_of_it_in_each_shard(tmp_path):
    """CIDEr's document frequencies are those of the run's samples, not of a shard's."""
    asked = {"encoder": "clip", "task": "captioning", "attack": "none", "limit": 4, "device": "cpu"}
    (whole,) = resolve(Request.of(output=tmp_path / "one", **asked))
    loop.execute(whole)
    parts = shards.split(resolve(Request.of(output=tmp_path / "many", shards=2, **asked))[0])
    for part in parts:
        loop.execute(part)
    assert bare(load_run(shards.join(parts)).records) == bare(load_run(whole.directory).records)


def test_the_toy_has_samples_that_break_and_samples_that_do_not(toy, tmp_path):
    """Else the tests above would compare little."""
    run = carry_out(toy, config(tmp_path))
    assert {"clean", "apgd", "again"} == {r.step for r in run.records}
    assert 0 < len({r.sample_id for r in run.records if r.score == 0}) < FEW
