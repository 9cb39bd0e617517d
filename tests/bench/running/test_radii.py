"""Largest radius first: who is spared the smaller ones, and that neither batches, shards nor a kill change a record."""

import os
from contextlib import suppress
from dataclasses import replace

import msgspec
import pytest

from attacks.presets import PRESETS, Preset
from bench.config import RunConfig
from bench.records import load_run
from bench.records.inferred import inferred
from bench.records.worst import worst_scores
from bench.running import load, loop, radii, shards
from bench.running.history import History
from tasks.zeroshot import ZeroShot
from tests.bench.runs import make_header, make_record
from tests.bench.toy_runs import make_setup, short

SMALL, LARGE = RADII = (16.0, 20.0)  # of 12 samples the toy loses 5 and 9
SIZE = 12


class Graded(ZeroShot):
    """Of two wrong classes one is half right, so that a score can be lowered and not broken."""

    def score(self, prediction, sample):
        wrong = self.dataset.classnames.index(prediction) % 2
        return 100.0 if prediction == sample.references[0] else 40.0 * wrong


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """What survives a power loss is tested elsewhere."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def go(tmp_path, monkeypatch):
    """Carries out a run of the toy in its parts; `die` after so many appended batches of records."""
    made = iter(range(100))

    def carry_out(order, eps=RADII, graded=False, die=None, output=None, steps=None, **changes):
        attack = steps or [short("apgd", 6)[0], replace(short("apgd", 6)[0], name="again", start="best")]
        monkeypatch.setitem(PRESETS, "toy", Preset("", tuple(attack)))
        setup = make_setup("toy", eps=eps)
        kind = Graded if graded else ZeroShot
        task = kind(replace(setup.task.dataset, samples=setup.samples[:SIZE]))
        protocol = {"precision": "float32"} | ({} if order == "ascending" else {"radii_order": order})
        header = replace(setup.header, n_samples=SIZE, protocol=protocol)
        images = replace(setup.images, pixels=setup.images.pixels[:SIZE])
        setup = replace(setup, task=task, images=images, header=header)
        monkeypatch.setattr(load, "load_task", lambda config: task)
        config = RunConfig(
            suite="mini", encoder="toy", task="zeroshot", dataset="toy", samples=SIZE, norm="linf", attack="toy",
            eps=eps, seed=0, device="cpu", output=output or tmp_path / str(next(made)), radii_order=order, **changes,
        )  # fmt: skip
        parts = shards.split(config)
        for part in parts:
            if die is not None:
                assert sum([_killed(monkeypatch, part, setup, left) for left in die]) > 1
            loop.carry_out(part, setup)
        return load_run(shards.join(parts) if parts[0].shard else config.directory)

    return carry_out


class KillError(BaseException):
    """Stands for SIGKILL: no handler may see it."""


def _killed(monkeypatch, config, setup, left):
    """Carries out a run that dies once so many batches of records are appended to it, unless it ends before."""
    countdown = iter(range(left - 1))

    def append(store, records, real=loop.RunStore.append):
        real(store, records)
        if records and store.directory == config.folder and next(countdown, None) is None:
            raise KillError

    with monkeypatch.context() as patched, suppress(KillError):
        patched.setattr(loop.RunStore, "append", append)
        loop.carry_out(config, setup)
    return load_run(config.folder).header.status != "complete"


def bare(run):
    """All of a run's records but for times and what rounding in other batches moves."""
    rows = [msgspec.structs.replace(r, seconds=0.0, loss=None, loss_curve=None) for r in run.records]
    return sorted(rows, key=lambda r: (r.sample_id, r.radius, r.step))


def but_for_first(run, count):
    """The same of all samples but the first."""
    return [r for r in bare(run) if r.sample_id >= f"s{count:02d}"]


def attacked(run, radius):
    return {r.sample_id for r in run.records if r.radius == radius}


def unchanged(run, radius):
    """Samples that every attack at a radius left their clean score; written for itself."""
    clean = {r.sample_id: r.score for r in run.records if r.step == "clean"}
    lowered = {r.sample_id for r in run.records if r.radius == radius and r.score != clean[r.sample_id]}
    return attacked(run, radius) - lowered


@pytest.mark.parametrize("graded", [False, True])
def test_what_the_largest_radius_leaves_as_it_was_is_spared_the_smaller_one(go, graded):
    run = go("descending", graded=graded)
    spared = unchanged(run, LARGE)
    assert 0 < len(spared) < SIZE
    assert attacked(run, SMALL) == attacked(run, LARGE) - spared
    assert inferred(run.header, run.records, SMALL) == dict.fromkeys(spared, LARGE)
    assert len(worst_scores(run.header, run.records, SMALL)) == SIZE
    if graded:
        lowered = {r.sample_id for r in run.records if r.radius == LARGE and r.score == 40.0}
        assert lowered
        assert lowered <= attacked(run, SMALL), "a lowered score may lie anywhere up to the clean one"


def test_the_order_changes_no_attack_that_is_made_in_both_and_here_no_score(go):
    up, down = (go(order, steps=short("apgd", 6)) for order in ("ascending", "descending"))
    first, second = ({r.key: r for r in bare(run)} for run in (up, down))
    both = first.keys() & second.keys()
    assert {r.radius for r in map(first.get, both)} == {0.0, SMALL, LARGE}
    assert [first[key] for key in sorted(both)] == [second[key] for key in sorted(both)]
    for radius in RADII:
        assert worst_scores(up.header, up.records, radius) == worst_scores(down.header, down.records, radius)
    assert attacked(up, LARGE) < attacked(down, LARGE)


def test_of_three_radii_each_is_spared_what_the_nearest_larger_one_left(go):
    run = go("descending", eps=(12.0, SMALL, LARGE))
    assert attacked(run, 12.0) == attacked(run, SMALL) - unchanged(run, SMALL) < attacked(run, SMALL)


def test_an_error_at_the_largest_radius_spares_nothing(go, monkeypatch, tmp_path):
    """The second step fails on some samples there, and is taken again when the run is resumed."""
    wanted = go("descending")
    failing = set(sorted(unchanged(wanted, LARGE))[:2])

    def broken_memory(self, batch, real=loop.Attacker.attack):
        rows = real(self, batch)
        wrong = batch.step.name == "again" and batch.eps == LARGE
        return [
            [replace(one, record=msgspec.structs.replace(one.record, score=None, error="not finite")) for one in images]
            if wrong and sample.id in failing
            else images
            for sample, images in zip(batch.volley.samples, rows, strict=True)
        ]

    with monkeypatch.context() as patched:
        patched.setattr(loop.Attacker, "attack", broken_memory)
        run = go("descending", output=tmp_path / "run")
    assert attacked(run, SMALL) == attacked(wanted, SMALL) | failing
    assert len(failing) == 2
    assert run.header.status == "failed"
    again = go("descending", output=tmp_path / "run")
    assert again.header.status == "complete"
    for radius in RADII:
        scores = [worst_scores(one.header, one.records, radius) for one in (again, wanted)]
        assert scores[0] == scores[1]


@pytest.mark.parametrize("order", ["descending", "adaptive"])
@pytest.mark.parametrize("changes", [{"batch_size": 1}, {"batch_size": 5, "shards": 3}, {"shards": SIZE + 1}])
def test_neither_batches_nor_shards_change_a_record(go, monkeypatch, order, changes):
    monkeypatch.setattr(loop, "FIRST", 4)
    assert bare(go(order, save_adversarial=True, **changes)) == bare(go(order, save_adversarial=True))


@pytest.mark.parametrize("order", ["descending", "adaptive"])
@pytest.mark.parametrize("shards", [None, 2])
def test_a_run_that_is_killed_after_any_batch_ends_as_if_it_had_not_been(go, monkeypatch, order, shards):
    """Again and again, so that each resumption begins somewhere else."""
    monkeypatch.setattr(loop, "FIRST", 4)
    straight = go(order, batch_size=3)
    killed = go(order, batch_size=3, shards=shards, die=(1, 2, 1, 2, 1))
    assert bare(killed) == bare(straight)


@pytest.mark.parametrize(("larger", "chosen"), [(8.0, "descending"), (48.0, "ascending")])
def test_the_first_samples_choose_for_all(go, monkeypatch, larger, chosen):
    """Where nothing breaks, the largest radius spares the smaller one; where all breaks, it would come on top."""
    monkeypatch.setattr(loop, "FIRST", 3)
    eps = (larger / 2, larger)
    adaptive, fixed = go("adaptive", eps=eps), go(chosen, eps=eps)
    assert but_for_first(adaptive, 3) == but_for_first(fixed, 3)
    assert {"s00", "s01", "s02"} <= attacked(adaptive, larger)
    assert (adaptive.header.chosen_order, fixed.header.chosen_order) == (chosen, "")


@pytest.mark.parametrize("chosen", ["ascending", "descending"])
def test_a_part_run_again_takes_the_order_of_the_whole(go, monkeypatch, chosen):
    """Whatever its own first samples would choose: with three radii the orders differ for these, too."""
    monkeypatch.setattr(loop, "FIRST", 3)
    eps = (12.0, SMALL, LARGE)
    part, fixed = go("adaptive", eps=eps, chosen_order=chosen), go(chosen, eps=eps)
    assert but_for_first(part, 3) == but_for_first(fixed, 3)
    assert part.header.chosen_order == chosen
    assert fixed.header.chosen_order == ""


def test_a_run_that_goes_on_keeps_its_choice(go, monkeypatch):
    """A step that failed at first and is taken again might tip it."""
    monkeypatch.setattr(loop, "FIRST", 3)
    run = go("adaptive", eps=(4.0, 8.0))
    assert run.header.chosen_order == "descending"
    descending = but_for_first(run, 3)
    header = run.directory / "run.json"
    header.write_text(header.read_text().replace('"chosen_order": "descending"', '"chosen_order": "ascending"'))
    (run.directory / "records.jsonl").unlink()
    again, fixed = go("adaptive", eps=(4.0, 8.0), output=run.directory.parents[2]), go("ascending", eps=(4.0, 8.0))
    assert again.directory == run.directory
    assert again.header.chosen_order == "ascending"
    assert but_for_first(again, 3) == but_for_first(fixed, 3) != descending


def test_smallest_first_the_largest_radius_gets_what_is_left(go):
    up = go("ascending")
    assert attacked(up, LARGE) < attacked(up, SMALL)
    assert inferred(up.header, up.records, SMALL) == {}


@pytest.mark.parametrize(
    ("spent", "chosen"),
    [
        ({"same": 100, "broken": 99, "lowered": 500}, "descending"),
        ({"same": 100, "broken": 100, "lowered": 0}, "ascending"),
        ({"same": 0, "broken": 0, "lowered": 100}, "ascending"),
    ],
)
def test_the_order_is_that_on_which_fewer_gradients_would_go(spent, chosen):
    """By the gradients at the largest radius alone; what is lowered and not broken is attacked in either order."""
    scores = {"same": 90.0, "broken": 0.0, "lowered": 30.0}
    rows = [make_record(name, score=90.0) for name in scores]
    rows += [make_record(n, "one", 4.0, score, evaluations=spent[n]) for n, score in scores.items()]
    rows += [make_record(name, "one", 2.0, 90.0, evaluations=10_000) for name in ("broken", "lowered")]
    setup = make_setup("toy")
    task = ZeroShot(setup.task.dataset)  # broken is a score of 0
    samples = [replace(setup.samples[0], id=name) for name in scores]
    header = make_header(radii=(2.0, 4.0), protocol={"radii_order": "adaptive"})
    assert radii.chosen_order(History(header, rows), samples, 4.0, task) == chosen


def test_a_shard_looks_at_what_of_the_first_samples_is_not_its_own_and_leaves_nothing(go, monkeypatch, tmp_path):
    monkeypatch.setattr(loop, "FIRST", 4)
    looked = {}

    class Watched(loop.RunStore):
        def append(self, records, real=loop.RunStore.append):
            if tmp_path not in self.directory.parents:
                looked.setdefault(self.directory, set()).update(record.sample_id for record in records)
            real(self, records)

    monkeypatch.setattr(loop, "open_run", lambda directory, header, **options: Watched(directory, header))
    run = go("adaptive", shards=3, output=tmp_path / "run")
    assert list(looked.values()) == [{"s01", "s02"}, {"s00", "s02", "s03"}, {"s00", "s01", "s03"}]
    assert not any(place.exists() for place in looked)
    assert len({r.key for r in run.records}) == len(run.records)
