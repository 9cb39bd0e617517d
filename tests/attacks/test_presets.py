"""Presets are data: consistent, in the published order, and readable without torch."""

import subprocess
import sys

import pytest

from attacks.kinds import KINDS
from attacks.presets import PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_steps_are_sound(name):
    preset = PRESETS[name]
    assert preset.description
    assert "\n" not in preset.description
    names = [step.name for step in preset.steps]
    assert names
    assert len(set(names)) == len(names)
    assert all(step.steps > 0 for step in preset.steps)
    assert all(step.first_step > 0 for step in preset.steps if step.kind in ("apgd", "pgd"))
    assert {step.kind for step in preset.steps} <= KINDS.keys()
    assert all(step.start != "best" for step in preset.steps[:1])


def test_autoattack_runs_cross_entropy_then_nine_targets():
    goals = [step.goal for step in PRESETS["autoattack"].steps]
    assert goals == ["untargeted", *(f"targeted-{rank}" for rank in range(1, 10))]
    assert {(s.kind, s.steps, s.start, s.first_step) for s in PRESETS["autoattack"].steps} == {
        ("apgd", 100, "random", 2.0)
    }


def test_the_papers_zero_shot_attack_has_five_restarts_of_cross_entropy():
    steps = PRESETS["autoattack-paper"].steps
    assert [step.goal for step in steps[:5]] == ["untargeted"] * 5
    assert len({step.name for step in steps[:5]}) == 5, "the name is part of a start's seed"
    assert steps[5:] == PRESETS["autoattack"].steps[1:]


def test_all_of_autoattack_is_its_standard_version():
    steps = PRESETS["autoattack-full"].steps
    assert steps[:10] == PRESETS["autoattack"].steps
    assert [(step.kind, step.steps) for step in steps[10:]] == [("fab-t", 100), ("square", 5000)]


def test_the_published_rounds_in_single_precision_are_so_in_every_run():
    precision = {step.name: step.precision for step in PRESETS["ensemble-vqa"].steps}
    assert precision == {
        **{f"reference-{n}": "search" for n in range(5)}, "again": "float32", "maybe": "float32", "Word": "float32"
    }  # fmt: skip


def test_ensembles_follow_the_published_rounds():
    rounds = [(step.goal, step.start) for step in PRESETS["ensemble-vqa"].steps]
    assert rounds[:5] == [(f"reference-{n}", "clean") for n in range(5)]
    assert rounds[5:] == [("best", "best"), ("target:maybe", "clean"), ("target:Word", "clean")]
    assert PRESETS["ensemble"].steps == PRESETS["ensemble-vqa"].steps[:6]
    assert {(step.steps, step.first_step) for step in PRESETS["ensemble-vqa"].steps} == {(100, 1.0)}


def test_stealth_is_one_long_climb():
    (step,) = PRESETS["stealth"].steps
    assert (step.kind, step.steps, step.start, step.first_step) == ("apgd", 10_000, "clean", 1.0)


def test_presets_load_without_torch():
    code = "import sys, attacks.presets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
