"""Defended runs: who knows the defence attacks it, draws are fresh, and a number says whether it can be relied upon."""

import json
from statistics import fmean

import pytest
import torch

from attacks.adaptive import PUBLISHED, STAND_IN, adaptive_steps
from attacks.objective import Expectation, Progress
from attacks.presets import PRESETS
from bench.records import CLEAN, load_run
from bench.records.worst import worst_choices
from bench.running.certify import AttackBatch, Conditions, carry_out, objective
from bench.running.defended import source_of
from bench.running.units import threat_model
from bench.running.volley import Volley
from tests.bench import defended_runs as controls
from tests.bench.defended_runs import STEPS, defended_run, defended_setup, put_defence
from tests.bench.toy_runs import RADIUS, bare, robust, run


def failed(found):
    return {check["name"] for check in found.header.checks if not check["ok"]}


@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        (controls.Killing, {"gradient", "finite_differences"}),
        (controls.Shrinking, {"finite_differences"}),
        (controls.Secret, {"repeatable"}),
        (controls.Coupled, {"rows_independent"}),
    ],
)
def test_a_faulty_defence_is_flagged(tmp_path, monkeypatch, kind, flags):
    found = defended_run(tmp_path, monkeypatch, put_defence(monkeypatch, kind))
    assert flags <= failed(found)


def test_a_quantising_defence_is_flagged_and_broken_all_the_same(tmp_path, monkeypatch):
    found = defended_run(tmp_path, monkeypatch, "bit-depth?bits=5")
    assert {"gradient", "finite_differences"} <= failed(found)
    assert robust(found) <= robust(run(tmp_path / "plain", "pgd", monkeypatch=monkeypatch)) | set()


def test_the_identity_is_not_flagged_and_changes_no_answer(tmp_path, monkeypatch):
    found = defended_run(tmp_path / "defended", monkeypatch, "identity")
    plain = run(tmp_path / "plain", STEPS, monkeypatch=monkeypatch)
    assert failed(found) == set()
    assert [(r.prediction, r.score) for r in found.records if r.step == CLEAN] == [
        (r.prediction, r.score) for r in plain.records if r.step == CLEAN
    ]
    assert {step.name for step in found.header.steps} == {PUBLISHED, "undefended:climb", "as-is:climb", "black-box"}
    assert robust(found) <= robust(plain)


@pytest.mark.parametrize(("kind", "agrees"), [(controls.Killing, True), (controls.Misled, False)])
def test_the_stand_in_is_held_against_differences_too(tmp_path, monkeypatch, kind, agrees):
    """The identity is a perfect stand-in for a cut; another leads the wrong way."""
    found = defended_run(tmp_path, monkeypatch, put_defence(monkeypatch, kind))
    assert {check["ok"] for check in found.header.checks if check["name"] == STAND_IN} == {agrees}


def test_the_shrunken_gradient_passes_the_look_at_whether_it_is_zero(tmp_path, monkeypatch):
    found = defended_run(tmp_path, monkeypatch, put_defence(monkeypatch, controls.Shrinking))
    assert "gradient" not in failed(found)


def test_bpda_breaks_what_an_attack_without_gradients_does_not(tmp_path, monkeypatch):
    found = defended_run(tmp_path, monkeypatch, put_defence(monkeypatch, controls.Killing))
    left = {
        way: {r.sample_id for r in found.records if r.step == f"{way}:climb" and r.score == 100}
        for way in ("as-is", "bpda")
    }
    assert left["bpda"] < left["as-is"]


def test_every_way_is_tried_on_every_sample_that_is_right_when_clean(tmp_path, monkeypatch):
    found = defended_run(tmp_path, monkeypatch, put_defence(monkeypatch, controls.Killing))
    right = {r.sample_id for r in found.records if r.step == CLEAN and r.score == 100}
    for step in (PUBLISHED, "as-is:climb", "bpda:climb"):
        assert {r.sample_id for r in found.records if r.step == step} == right
    standing = {r.sample_id for r in found.records if r.step == "black-box"}
    assert standing == right - {r.sample_id for r in found.records if r.step != "black-box" and r.score == 0}


# ---- Draws ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def shaky(tmp_path, monkeypatch):
    return defended_run(tmp_path, monkeypatch, put_defence(monkeypatch, controls.Shaky), save_adversarial=True)


def test_scores_are_means_over_fresh_draws(shaky):
    assert "repeatable" not in failed(shaky)
    for record in shaky.records:
        assert len(record.draws) == 10
        assert record.score == pytest.approx(fmean(record.draws))
        assert record.screen in {20.0 * k for k in range(6)}
    assert any(0 < record.score < 100 for record in shaky.records)
    assert {step.name for step in shaky.header.steps} == {
        PUBLISHED,
        "undefended:climb",
        "as-is:climb",
        "eot:climb",
        "black-box",
    }


def test_a_resumed_run_draws_the_same(shaky, tmp_path, monkeypatch):
    path = shaky.directory / "records.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: len(lines) // 2]))
    again = defended_run(tmp_path, monkeypatch, put_defence(monkeypatch, controls.Shaky), save_adversarial=True)
    assert [(r.key, r.draws, r.screen) for r in again.records] == [(r.key, r.draws, r.screen) for r in shaky.records]
    assert bare(again.records) == bare(shaky.records)


def test_the_batch_size_changes_nothing(shaky, tmp_path, monkeypatch):
    other = defended_run(tmp_path / "b", monkeypatch, put_defence(monkeypatch, controls.Shaky), batch_size=5)
    assert {(r.key, r.draws, r.screen) for r in other.records} == {(r.key, r.draws, r.screen) for r in shaky.records}


def test_the_screen_not_the_score_says_who_is_broken(shaky):
    chosen = worst_choices(shaky.header, shaky.records, RADIUS)
    black = {r.sample_id for r in shaky.records if r.step == "black-box"}
    before = [r for r in shaky.records if r.step != "black-box"]
    left = {s for s, choice in worst_choices(shaky.header, before, RADIUS).items() if choice > 0}
    assert black == left
    assert chosen.keys() == {r.sample_id for r in shaky.records}


def test_old_lines_have_no_draws_and_new_ones_come_back(shaky):
    data = json.loads(shaky.records[0].to_json())
    assert {"draws", "screen"} <= data.keys()
    assert load_run(shaky.directory).records == shaky.records


def test_an_expectation_is_the_mean_over_draws_and_fools_where_all_do():
    def part(rows, looks, draw):
        return lambda images, own: Progress(images.sum((1, 2, 3)) * draw + looks + rows, rows < draw)

    mean = Expectation(part, 3, 4)
    images, rows = torch.ones(2, 1, 1, 1), torch.tensor([2, 0])
    first, second = mean(images, rows), mean(images, rows)
    assert first.loss.tolist() == [1.5 + 2, 1.5]
    assert second.loss.tolist() == [1.5 + 2 + 1, 1.5 + 1]
    assert first.fooled.tolist() == [False, False]
    assert mean(images[:1], torch.tensor([1])).loss.tolist() == [1.5 + 1], "its first look"


def test_an_attack_on_a_randomised_victim_does_not_depend_on_its_batch(monkeypatch):
    setup = defended_setup([put_defence(monkeypatch, controls.Shaky)])
    step = next(s for s in adaptive_steps(STEPS, randomised=True, own_gradient=True) if s.through == "eot")
    conditions = Conditions(0, "start", stop_when_fooled=False, store=None)

    def attacked(rows):
        volley = Volley((step,), [setup.samples[row] for row in rows])
        batch = AttackBatch(volley, setup.images[rows], RADIUS, threat_model("linf", RADIUS))
        goal = objective(batch, *source_of(setup.victim, step, 0, RADIUS))
        return carry_out(batch, goal, conditions)[0]

    together = attacked([0, 1, 2, 3])
    for row in range(4):
        one = attacked([row])
        assert torch.equal(one.images[0], together.images[row])
        assert one.loss[0] == together.loss[row]


# ---- The protocol as data ------------------------------------------------------------------------------------------


def test_the_protocol_around_autoattack():
    base = PRESETS["autoattack"].steps
    steps = adaptive_steps(base, randomised=False, own_gradient=False)
    assert steps[0].name == PUBLISHED
    assert [s.through for s in steps if s.through != "undefended"][-1] == "queries"
    assert len(steps) == 1 + 3 * len(base) + 1
    assert all(s.independent for s in steps[:-1])
    assert all(s.volley == "" for s in adaptive_steps(base, randomised=True, own_gradient=False))
    volleys = {s.through: s.volley for s in steps if s.volley}
    assert volleys["bpda"] == "bpda:apgd-t"
    assert len({s.name for s in steps}) == len(steps)


def test_undefended_steps_are_stored_as_before():
    assert all({"through", "independent"}.isdisjoint(s.as_data()) for s in PRESETS["autoattack"].steps)
    assert adaptive_steps(STEPS, randomised=True, own_gradient=True)[1].as_data()["through"] == "undefended"
