"""Presets are data: consistent, in the published order, and readable without torch."""

import subprocess
import sys
from dataclasses import replace

import pytest

from attacks.presets import PRESETS
from bench import registry


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
    assert {step.kind for step in preset.steps} <= set(registry.ATTACK_KINDS)
    assert all(step.start != "best" for step in preset.steps[:1])


def test_autoattack_opens_briefly_then_runs_nine_targets_and_cross_entropy():
    opening, *steps = PRESETS["autoattack"].steps
    assert (opening.kind, opening.steps, opening.goal) == ("apgd", 10, "untargeted")
    assert [step.goal for step in steps] == [*(f"targeted-{rank}" for rank in range(1, 10)), "untargeted"]
    assert {(s.kind, s.steps, s.start, s.first_step) for s in steps} == {("apgd", 100, "random", 2.0)}
    assert {step.volley for step in steps} == {"apgd-t", ""}


def test_what_is_robust_to_the_end_has_had_all_of_autoattack_and_the_margins_besides():
    steps = PRESETS["autoattack-margin"].steps
    margins = [step for step in steps if step.options]
    assert [step for step in steps if step not in margins] == list(PRESETS["autoattack"].steps)
    assert steps.index(margins[-1]) < steps.index(PRESETS["autoattack"].steps[1])
    assert [step.goal for step in margins] == [f"targeted-{rank}" for rank in range(1, 10)]
    assert {(s.steps, s.options["loss"], s.volley, s.shortcut) for s in margins} == {(25, "margin", "margin", True)}


def test_the_papers_zero_shot_attack_has_five_restarts_of_cross_entropy():
    steps = PRESETS["autoattack-paper"].steps
    restarts = [step for step in steps if step.goal == "untargeted"]
    assert len({step.name for step in restarts}) == 5, "the name is part of a start's seed"
    assert {(s.kind, s.steps, s.start, s.first_step) for s in restarts} == {("apgd", 100, "random", 2.0)}
    assert [step for step in steps if step not in restarts] == list(PRESETS["autoattack"].steps[1:-1])


def test_all_of_autoattack_is_its_standard_version():
    steps = PRESETS["autoattack-full"].steps
    assert steps[:11] == PRESETS["autoattack"].steps
    assert [(step.kind, step.steps) for step in steps[11:]] == [("fab-t", 100), ("square", 5000)]


def test_the_published_rounds_in_single_precision_are_so_in_every_run():
    precision = {step.name: step.precision for step in PRESETS["ensemble-vqa"].steps}
    assert precision == {
        **{f"reference-{n}": "search" for n in range(5)}, "again": "float32", "maybe": "float32", "Word": "float32"
    }  # fmt: skip


def test_ensembles_follow_the_published_rounds():
    rounds = [(step.goal, step.start) for step in PRESETS["ensemble-vqa"].steps]
    assert rounds[:5] == [(f"reference-{n}", "clean") for n in range(5)]
    assert rounds[5:] == [("best", "best"), ("target:maybe", "clean"), ("target:Word", "clean")]
    captions = PRESETS["ensemble"].steps
    assert {step.kind for step in captions} == {"apgd-confirm"}
    assert tuple(replace(step, kind="apgd") for step in captions) == PRESETS["ensemble-vqa"].steps[:6]
    assert {(step.steps, step.first_step) for step in PRESETS["ensemble-vqa"].steps} == {(100, 1.0)}


def test_the_published_stealth_attack_is_one_long_climb():
    (step,) = PRESETS["stealth"].published
    assert (step.kind, step.steps, step.start, step.first_step) == ("apgd", 10_000, "clean", 1.0)


def test_stealth_gathers_momentum_then_tries_otherwise():
    steps = PRESETS["stealth"].steps
    assert [(step.kind, step.goal, step.start) for step in steps] == [
        ("pgd", "target", "clean"),
        ("pgd", "target", "random"),
        ("apgd", "target", "random"),
        ("pgd", "own-words", "clean"),
    ]
    assert {tuple(step.options.items()) for step in steps if step.kind == "pgd"} == {
        (("momentum", 0.9), ("schedule", "cosine"))
    }
    assert PRESETS["stealth-500"].steps[0].options == steps[0].options


def test_presets_load_without_torch():
    code = "import sys, attacks.presets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
