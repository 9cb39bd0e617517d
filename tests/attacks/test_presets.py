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
