"""Volleys: one image under several goals in one batch; and AutoAttack, which is made of them."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from safetensors.torch import load_file

from attacks.objective import runner_up
from attacks.presets import EMBEDDING, PRESETS, AttackStep
from bench.data.bank import Images
from bench.errors import UsageError
from bench.running.certify import AttackBatch, Conditions, _seed, start_of
from bench.running.units import UNITS, threat_model
from bench.running.volley import Volley
from tasks.zeroshot import ZeroShot
from tests.bench.toy_runs import (
    COUNT,
    NAMES,
    RADIUS,
    Linear,
    bare,
    make_setup,
    robust,
    short,
)
from tests.toys import trained_toy


def test_rows_of_a_volley_go_back_to_their_samples():
    samples = make_setup("toy").samples[:3]
    volley = Volley(tuple(short("autoattack")[1:3]), samples)
    names = [(step.name, sample.id) for step, sample in volley.rows]
    assert names == [(f"apgd-t-{rank}", f"s0{k}") for rank in (1, 2) for k in range(3)]
    assert [sample.id for sample in volley.sample_rows] == ["s00", "s01", "s02"] * 2
    assert volley.by_sample(names) == [[(f"apgd-t-{rank}", f"s0{k}") for rank in (1, 2)] for k in range(3)]
    pictures = torch.rand(3, 3, 2, 2)
    assert torch.equal(volley.repeat(pictures), torch.cat([pictures, pictures]))
    assert volley.siblings(torch.device("cpu")).tolist() == [0, 1, 2, 0, 1, 2]
    assert Volley(volley.steps[:1], samples).siblings(torch.device("cpu")) is None
    assert (volley.name, Volley((replace(volley.steps[0], volley=""),), samples).name) == ("apgd-t", "apgd-t-1")


def test_the_random_stream_of_a_sample_never_changes():
    """A seed, sample, step and radius have named the same start in every version: archived numbers depend on it."""
    assert _seed(0, "s0", "pgd", 4.0) == 764_227_429_825_801_591
    parts = [
        (0, "s0", "pgd", 4.0),
        (1, "s0", "pgd", 4.0),
        (0, "s1", "pgd", 4.0),
        (0, "s0", "x", 4.0),
        (0, "s0", "pgd", 2.0),
    ]
    assert len({_seed(*one) for one in parts}) == 5
    assert all(0 <= _seed(*one) < 2**63 for one in parts)


def test_a_volley_breaks_what_its_steps_break_one_by_one(attack):
    targets = short("autoattack")[1:-1]
    together = attack([replace(step, volley="all") for step in targets])
    apart = attack([replace(step, volley="") for step in targets])
    assert robust(together) == robust(apart)
    assert 0 < len(robust(together)) < COUNT


def test_a_broken_sample_keeps_the_step_that_broke_it_and_the_cost_of_all(attack):
    steps = [replace(step, start="clean", volley="all") for step in short("autoattack")[1:-1]]
    found = attack(steps)
    by_sample = {}
    for record in found.records:
        if record.step != "clean":
            by_sample.setdefault(record.sample_id, []).append(record)
    broken = [records for records in by_sample.values() if records[-1].score == 0]
    stood = [records for records in by_sample.values() if records[-1].score == 100]
    assert broken
    assert stood
    assert all(len(records) == 1 for records in broken)
    assert all(len(records) == 9 and {r.evaluations for r in records} == {12} for records in stood)
    assert any(records[0].evaluations > 12 for records in broken), "siblings cost, too"


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("preset", ["autoattack", "autoattack-paper", "pgd", "embedding"])
def test_batches_of_any_size_record_the_same(attack, preset, norm):
    eps = RADIUS if norm == "linf" else 0.7
    options = {"norm": norm, "eps": (eps,), "setup": make_setup("toy", eps=(eps,)), "save_adversarial": True}
    whole, seven, single = (attack(short(preset, 6), batch_size=size, **options) for size in (32, 7, 1))
    assert bare(whole.records) == bare(seven.records) == bare(single.records)
    for other in (seven, single):
        assert losses(other) == pytest.approx(losses(whole), rel=0, abs=1e-5)
        assert [name for name, _ in images(other)] == [name for name, _ in images(whole)]
        for (_, image), (_, wanted) in zip(images(other), images(whole), strict=True):
            torch.testing.assert_close(image, wanted, rtol=0, atol=1e-9)


def losses(found):
    return [r.loss for r in sorted(found.records, key=lambda r: r.key) if r.step != "clean"]


def images(found):
    """Names and pixels of a run's saved images."""
    paths = sorted((found.directory / "adversarial").rglob("*.safetensors"))
    return [(path.name, load_file(path)["image"]) for path in paths]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_empty_ball_gives_the_clean_result_bit_for_bit(attack, norm):
    """Of every kind of attack; the victim answers what it answers to the clean image."""
    steps = [*short("autoattack", 4), *short("autoattack-full", 4)[-2:], *short("pgd", 4), *short("embedding", 4)]
    found = attack(steps, norm=norm, eps=(0.0,), setup=make_setup("toy", eps=(0.0,)))
    clean = {r.sample_id: r.prediction for r in found.records if r.step == "clean"}
    attacked = [r for r in found.records if r.step != "clean"]
    assert {r.step for r in attacked} == {step.name for step in steps}
    assert all(r.distance == 0 and r.prediction == clean[r.sample_id] and r.error is None for r in attacked)


def test_a_volley_of_attacks_that_share_no_forward_pass_is_refused(attack):
    steps = [AttackStep(f"ce-{n}", "apgd", 2, "untargeted", "random", 2.0, volley="ce") for n in range(2)]
    with pytest.raises(UsageError, match=r"volley 'ce'.*side by side"):
        attack(steps)


def of_autoattack(samples, images, labels, threat, seed):
    """The samples that pyautoattack's APGD-CE and APGD-T do not break, from the starts that the runner draws."""
    model, left = trained_toy().model, list(range(len(samples)))
    for step in short("autoattack", 30)[1:]:  # the protocol "paper" leaves out the shortcut
        if not left:
            break
        clean, true = images[left], labels[left]
        volley = Volley((step,), [samples[k] for k in left])
        batch = AttackBatch(volley, clean, threat.eps * UNITS[threat.norm], threat)
        start = start_of(batch, Conditions(seed, "reference", True, None))
        options = {"n_iter": 30, "norm": {"linf": "Linf", "l2": "L2"}[threat.norm], "eps": threat.eps, "device": "cpu"}
        if step.goal == "untargeted":
            theirs = APGDAttack(model, loss="ce", **options)
        else:
            theirs = APGDAttack_targeted(model, **options)
            theirs.y_target = runner_up(model(clean), true, int(step.goal.removeprefix("targeted-")))
        theirs.init_hyperparam(clean)
        robust_ones = theirs.attack_single_run(clean, true, x_init=start)[1]
        left = [k for k, is_robust in zip(left, robust_ones.tolist(), strict=True) if is_robust]
    return {samples[k].id for k in left}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("norm", "eps"), [("linf", RADIUS), ("linf", 24.0), ("l2", 0.5), ("l2", 0.7)])
def test_the_preset_autoattack_breaks_what_pyautoattack_breaks(attack, norm, eps, seed):
    """The whole of it, run by the runner: both losses, nine targets, survivors only; sample by sample."""
    setup, toy = make_setup("toy", eps=(eps,)), trained_toy()
    found = attack(short("autoattack", 30), setup=setup, norm=norm, eps=(eps,), seed=seed, protocol="paper")
    labels, threat = toy.labels[:COUNT], threat_model(norm, eps)
    assert robust(found, eps) == of_autoattack(setup.samples, setup.images.pixels, labels, threat, seed)
    assert 0 < len(robust(found, eps)) < COUNT


def test_all_of_autoattack_runs_and_its_black_box_half_finds_nothing_new(attack):
    found = attack([*short("autoattack-full")[:-1], replace(PRESETS["autoattack-full"].steps[-1], steps=200)])
    assert {"apgd-ce-10", "apgd-ce", "apgd-t-1", "fab-t", "square"} <= {r.step for r in found.records}
    checks = {check["name"]: check["ok"] for check in found.header.checks}
    assert all(checks.values()), checks
    assert "white_box_at_least_black_box" in checks


@pytest.mark.parametrize(
    ("kind", "steps", "norm", "eps"),
    [("square", 60, "linf", 40.0), ("square", 40, "l2", 2.5), ("fab-t", 3, "linf", 14.0), ("fab-t", 3, "l2", 0.5)],
)
def test_borrowed_attacks_are_the_same_in_any_batch_and_stay_in_the_ball(attack, kind, steps, norm, eps):
    step = AttackStep(kind, kind, steps, "untargeted", "clean", 0.0)
    ball = {"norm": norm, "eps": (eps,), "setup": make_setup("toy", eps=(eps,))}
    whole, seven, single = (attack([step], batch_size=size, **ball) for size in (32, 7, 1))
    assert bare(whole.records) == bare(seven.records) == bare(single.records)
    assert all(r.error is None and r.distance <= 1.00001 * eps for r in whole.records)
    assert 0 < len(robust(whole, eps)) < COUNT


@pytest.mark.parametrize("classes", [2, 3, 4, 5])
def test_all_of_autoattack_runs_on_few_classes(attack, classes):
    """Targets are clamped to the rivals there are; targeted DLR needs four classes."""
    steps = [*short("autoattack-full", 6)[:-1], replace(PRESETS["autoattack-full"].steps[-1], steps=20)]
    found = attack(steps, setup=few_classes(classes), eps=(2.0,))
    targeted = {r.step for r in found.records if r.step.startswith("apgd-t")}
    assert targeted == ({f"apgd-t-{rank}" for rank in range(1, classes)} if classes >= 4 else set())
    assert {"apgd-ce", "fab-t", "square"} <= {r.step for r in found.records}
    assert not [r for r in found.records if r.error]


def few_classes(classes):
    """A set-up of the runner on a toy of its own."""
    toy, names = trained_toy(classes), NAMES[:classes]
    encoder = SimpleNamespace(patch_tokens=None)
    asked = Linear(toy.model, torch.eye(classes), 1.0, names)
    setup = make_setup("toy", eps=(2.0,))
    samples = tuple(
        replace(s, references=(names[k],)) for s, k in zip(setup.samples, toy.labels.tolist(), strict=False)
    )
    task = ZeroShot(replace(setup.task.dataset, samples=samples, classnames=names))
    return replace(
        setup,
        task=task,
        images=Images(toy.images[:COUNT], torch.device("cpu")),
        victim=asked,
        surrogate=asked,
        encoder=encoder,
    )


def test_square_refuses_what_is_no_classifier(attack):
    with pytest.raises(UsageError, match="'square' attacks the logits of a classifier"):
        attack([AttackStep("square", "square", 10, EMBEDDING, "clean", 0.0)])
