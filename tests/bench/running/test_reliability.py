"""What the checks on gradients say of real defences on the miniature encoders, and of the committed runs."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from attacks.presets import AttackStep
from attacks.threat import ThreatModel
from bench.config import Request, resolve
from bench.records import load_runs
from bench.running.defended import fixed
from bench.running.load import prepare
from bench.running.sanity_checks import defence_checks

COUNT = 4
MINI = Path(__file__).parents[3] / "results" / "mini"
STEP = AttackStep("climb", "apgd", 10, "untargeted", "random", 2.0)


def failing(encoder, defence):
    """Names of the checks on gradients that fail, at random images of the ball."""
    asked = {"task": ("zeroshot",), "dataset": ("mini-shape",), "eps": (4.0,), "limit": COUNT}
    (config,) = resolve(Request(encoder=(encoder,), defence=(defence,), **asked))
    setup = prepare(config)
    clean = setup.images[list(range(COUNT))]
    start = ThreatModel("linf", 4 / 255).random_start(clean, [torch.Generator().manual_seed(k) for k in range(COUNT)])
    own, bpda = (fixed(setup.victim, replace(STEP, through=way), clean, setup.samples, 0) for way in ("as-is", "bpda"))
    found = defence_checks(own, None if setup.victim.chain.own_gradient else bpda, clean, start)
    return {check.name for check in found if not check.ok}


@pytest.mark.parametrize(
    ("encoder", "defence", "flags"),
    [
        ("fare4", "identity", set()),
        ("fare4", "resize-pad", set()),
        ("clip", "noise", set()),
        ("clip", "smooth?copies=2", set()),
        ("clip", "clipure", {"finite_differences"}),  # its stand-in's gradient is exact
        ("clip", "ttc", {"finite_differences"}),
        ("clip", "jpeg", {"gradient", "finite_differences", "stand_in"}),
    ],
)
def test_defences_with_sound_gradients_are_not_flagged_and_others_are(encoder, defence, flags):
    assert failing(encoder, defence) == flags


def test_a_robust_model_is_not_flagged_and_each_committed_defence_is_for_its_own_reasons():
    """n = 500."""
    flags = {(run.header.encoder, run.header.defence): set(run.header.doubts) for run in load_runs([MINI / "defences"])}
    (plain,) = load_runs([MINI / "zeroshot" / "fare4_mini-shape_apgd_linf_2+4_seed0"])
    assert plain.header.doubts == ()
    assert flags["fare4", "identity"] == set()
    for encoder in ("clip", "fare4"):
        assert flags[encoder, "clipure"] == {"finite_differences"}
        assert {"gradient", "finite_differences"} <= flags[encoder, "jpeg"]
    assert flags["clip", "ttc"] == {"finite_differences"}
