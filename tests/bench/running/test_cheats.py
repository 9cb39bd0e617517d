"""Attacks that cheat, installed as plugins: what they return is measured, and what is wrong with it is named."""

import math

import pytest
import torch
from safetensors.torch import load_file

from attacks.kinds import run_apgd
from attacks.presets import AttackStep
from bench import registry
from bench.errors import UsageError
from tests.bench.toy_runs import COUNT, RADIUS, make_setup, put_kind, robust, short
from tests.toys import trained_toy

PLUGIN = """
import torch
from attacks.kinds import run_apgd


def honest(objective, images, threat, context):
    return run_apgd(objective, images, threat, context)


def far(objective, images, threat, context):
    outcome = run_apgd(objective, images, threat, context)
    return outcome._replace(images=(images + 2 * (outcome.images - images)).clamp(0, 1))


def a_little_too_far(objective, images, threat, context):
    wider = type(threat)(threat.norm, 1.00001 * threat.eps)
    return run_apgd(objective, images, wider, context)


def out_of_the_box(objective, images, threat, context):
    outcome = run_apgd(objective, images, threat, context)
    return outcome._replace(images=images - threat.eps * torch.ones_like(images))


def in_place(objective, images, threat, context):
    images.add_(0.3).clamp_(0, 1)
    return run_apgd(objective, images, threat, context)


def in_place_of_the_start(objective, images, threat, context):
    context.init.add_(0.3).clamp_(0, 1)
    return run_apgd(objective, context.init, threat, context)


def reordered(objective, images, threat, context):
    outcome = run_apgd(objective, images, threat, context)
    return outcome._replace(images=outcome.images.flip(0))


def nan(objective, images, threat, context):
    outcome = run_apgd(objective, images, threat, context)
    return outcome._replace(images=images * torch.nan)


def nan_loss(objective, images, threat, context):
    outcome = run_apgd(objective, images, threat, context)
    return outcome._replace(loss=outcome.loss * torch.nan)


def half(objective, images, threat, context):
    outcome = run_apgd(objective, images, threat, context)
    return outcome._replace(images=outcome.images.half())


def double(objective, images, threat, context):
    outcome = run_apgd(objective, images, threat, context)
    return outcome._replace(images=outcome.images.double())


def flat(objective, images, threat, context):
    outcome = run_apgd(objective, images, threat, context)
    return outcome._replace(images=outcome.images.flatten(1))


def fewer(objective, images, threat, context):
    outcome = run_apgd(objective, images, threat, context)
    return outcome._replace(images=outcome.images[1:])


def one_loss(objective, images, threat, context):
    outcome = run_apgd(objective, images, threat, context)
    return outcome._replace(loss=outcome.loss.mean())


def counts(objective, images, threat, context):
    outcome = run_apgd(objective, images, threat, context)
    return outcome._replace(fooled=outcome.fooled.long())


def a_list(objective, images, threat, context):
    outcome = run_apgd(objective, images, threat, context)
    return outcome._replace(loss=outcome.loss.tolist())


def images_alone(objective, images, threat, context):
    return run_apgd(objective, images, threat, context).images


def elsewhere(objective, images, threat, context):
    outcome = run_apgd(objective, images, threat, context)
    return outcome._replace(images=outcome.images.to("meta"))


def boasting(objective, images, threat, context):
    outcome = run_apgd(objective, images, threat, context)
    return outcome._replace(images=images, fooled=torch.ones_like(outcome.fooled))
"""

CAUGHT = {
    "far": "left the ball",
    "a_little_too_far": "left the ball",
    "out_of_the_box": "left",
    "in_place": "left the ball",
    "in_place_of_the_start": "left the ball",
    "reordered": "lies in the ball of another sample: were rows reordered?",
    "nan": "pixels that are not finite",
    "nan_loss": "returned the loss nan",
    "half": "torch.float16, not",
    "double": "torch.float64, not",
    "flat": "returned images (24, 192) torch.float32, not (24, 3, 8, 8)",
    "fewer": "returned images (23, 3, 8, 8)",
    "one_loss": "returned loss of shape (), not (24,)",
    "counts": "returned fooled as torch.int64, not torch.bool",
    "a_list": "returned loss as a list, not a tensor",
    "images_alone": "returned a Tensor, not an attacks.outcome.Outcome",
    "elsewhere": "returned images on meta, not on cpu",
}


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A distribution with a kind of attack for each function above, found through its entry points."""
    site = tmp_path / "site"
    facts = site / "cheating_attacks-1.0.dist-info"
    facts.mkdir(parents=True)
    (site / "cheating_attacks.py").write_text(PLUGIN)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: cheating-attacks\nVersion: 1.0\n")
    lines = [f"{name} = cheating_attacks:{name}" for name in (*CAUGHT, "honest", "boasting", "gone")]
    (facts / "entry_points.txt").write_text("\n".join(["[bench.attack_kinds]", *lines]) + "\n")
    monkeypatch.syspath_prepend(str(site))
    registry.plugins.cache_clear()
    yield
    registry.plugins.cache_clear()


def step(kind):
    return [AttackStep("mine", kind, 6, "untargeted", "clean", 2.0)]


@pytest.mark.parametrize("kind", CAUGHT)
def test_a_cheating_plugin_is_caught_and_named(attack, installed, kind):
    found = attack(step(kind), save_adversarial=True)
    errors = [record.error for record in found.records if record.step != "clean"]
    assert len(errors) == COUNT
    caught = [error for error in errors if error]
    assert caught
    assert all(error.startswith(f"attack step 'mine' ({kind}) ") and CAUGHT[kind] in error for error in caught)
    assert all(r.score is None and r.png_score is None for r in found.records if r.error)
    assert found.header.status == "failed"
    checks = {check["name"]: check["ok"] for check in found.header.checks}
    assert not checks["no_errors"]
    named = {path.stem for path in (found.directory / "adversarial" / f"{RADIUS:g}").glob("*.safetensors")}
    assert named <= {r.sample_id for r in found.records if r.step != "clean" and r.score == 0}, "no image of an error"
    if kind not in ("far", "a_little_too_far", "out_of_the_box"):  # these leave alone what they fool early
        assert len(caught) == COUNT


def test_an_honest_plugin_is_the_built_in_attack(attack, installed):
    found, built_in = attack(step("honest")), attack(step("apgd"))
    assert [(r.sample_id, r.score, r.loss) for r in found.records] == [
        (r.sample_id, r.score, r.loss) for r in built_in.records
    ]
    assert found.header.status == "complete"


def test_what_a_plugin_claims_is_not_believed(attack, installed):
    found = attack(step("boasting"))
    assert len(robust(found)) == COUNT
    checks = {check["name"]: check["ok"] for check in found.header.checks}
    assert not checks["attack_moves_images"]


def test_a_plugin_that_cannot_be_imported_or_is_misspelt_is_named(attack, installed):
    with pytest.raises(UsageError, match=r"'gone' .*cheating_attacks:gone.* is broken: it cannot be imported"):
        attack(step("gone"))
    with pytest.raises(UsageError, match=r"unknown kind of attack 'honset'; did you mean 'honest'"):
        attack(step("honset"))


def test_only_the_samples_that_cheat_are_errors(attack, monkeypatch):
    """One row of the batch is moved out of the ball; the others keep the result that they have without it."""
    plain = attack(short("apgd"))

    def slipping(objective, images, threat, context):
        outcome = run_apgd(objective, images, threat, context)
        moved = outcome.images.clone()
        moved[5] = (images[5] + 0.5).clamp(0, 1)
        return outcome._replace(images=moved)

    put_kind(monkeypatch, "apgd", slipping)
    found = attack(short("apgd"))
    assert [r.sample_id for r in found.records if r.error] == ["s05"]
    kept = [
        [(r.sample_id, r.step, r.score, r.loss) for r in one.records if r.sample_id != "s05"] for one in (found, plain)
    ]
    assert kept[0] == kept[1]


def test_the_ball_is_that_of_the_clean_image_to_the_last_bit(attack):
    """Distances of all saved images, in exact arithmetic."""
    found = attack(
        short("autoattack"), save_adversarial=True, eps=(4.0, RADIUS), setup=make_setup("toy", eps=(4.0, RADIUS))
    )

    paths = [
        path
        for radius in ("4", f"{RADIUS:g}")
        for path in (found.directory / "adversarial" / radius).glob("*.safetensors")
    ]
    assert len(paths) > 3
    for path in paths:
        image = load_file(path)["image"]
        clean = trained_toy().images[int(path.stem[1:])]
        assert image.dtype == torch.float32
        assert ((image >= 0) & (image <= 1)).all()
        eps = float(path.parent.name) / 255
        assert float((image.double() - clean.double()).abs().max()) <= eps + math.ulp(1.0) / 2 + 2.0**-24
        assert float((image.double() - clean.double()).abs().max()) > 0.5 * eps
