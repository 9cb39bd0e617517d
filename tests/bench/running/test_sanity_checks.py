"""Every check on a run fails on a model, or an attack, built to trigger it; a sound run passes all."""

from dataclasses import replace
from math import comb
from types import SimpleNamespace

import msgspec
import pytest
import torch
from click.testing import CliRunner

from attacks.kinds import run_apgd
from attacks.presets import PRESETS, AttackStep, Preset
from bench import api
from bench.cli import main
from bench.config import Request, resolve
from bench.models.encoders.encoder import Encoder
from bench.records import Record, load_run
from bench.running import sanity_checks
from bench.running.loop import execute
from bench.running.sanity_checks import run_checks
from tests.bench.runs import make_record, make_run
from tests.bench.toy_runs import COUNT, RADIUS, make_setup, put_kind, short, victim
from tests.toys import trained_toy


class KilledGradient(torch.autograd.Function):
    """Identity forward, zero backward."""

    @staticmethod
    def forward(ctx, images):
        return images.clone()

    @staticmethod
    def backward(ctx, gradient):
        return torch.zeros_like(gradient)


def failed(found):
    return {check["name"] for check in found.header.checks if not check["ok"]}


def spoiled(**changes):
    """The toy as a victim whose logits are passed through a function."""
    made = victim(**{k: v for k, v in changes.items() if k == "spoil"})
    if "output" in changes:
        honest = made.encoder
        object.__setattr__(made, "encoder", lambda images: changes["output"](honest(images)))
    return made


def test_a_sound_run_raises_nothing(attack):
    found = attack(short("autoattack"), eps=(8.0, RADIUS), setup=make_setup("toy", eps=(8.0, RADIUS)))
    assert failed(found) == set()
    names = "no_errors classes_told_apart gradient finite_differences repeatable logits beats_noise attack_moves_images"
    assert {c["name"] for c in found.header.checks} == {
        *names.split(),
        "robust_not_above_clean",
        "loss_grows_with_eps",
    }


def test_a_gradient_killer(attack):
    found = attack(short("apgd"), setup=make_setup("toy", asked=spoiled(spoil=KilledGradient.apply)))
    assert {"gradient", "beats_noise"} <= failed(found)


def test_a_quantised_input(attack):
    found = attack(short("apgd"), setup=make_setup("toy", asked=spoiled(spoil=lambda x: (x * 64).round() / 64)))
    assert {"gradient", "beats_noise"} <= failed(found)


def test_a_randomised_model(attack):
    noise = torch.Generator().manual_seed(0)
    shaken = spoiled(spoil=lambda x: x + 0.05 * torch.randn(x.shape, generator=noise))
    assert "repeatable" in failed(attack(short("apgd"), setup=make_setup("toy", asked=shaken)))


def test_softmax_outputs(attack):
    found = attack(short("apgd"), setup=make_setup("toy", asked=spoiled(output=lambda z: z.softmax(1))))
    assert "logits" in failed(found)


def test_huge_logits(attack):
    found = attack(short("apgd"), setup=make_setup("toy", asked=spoiled(output=lambda z: 1e4 * z)))
    assert "gradient" in failed(found)


def test_vanishing_gradients(attack):
    faint = spoiled(output=lambda z: z.detach() + 1e-30 * (z - z.detach()))
    assert "gradient" in failed(attack(short("apgd"), setup=make_setup("toy", asked=faint)))


def test_a_black_box_that_finds_what_gradients_do_not(attack):
    steps = [*short("apgd"), AttackStep("square", "square", 300, "untargeted", "clean", 0.0)]
    masked = spoiled(spoil=KilledGradient.apply)
    found = attack(steps, setup=make_setup("toy", asked=masked, eps=(40.0,)), eps=(40.0,))
    assert "white_box_at_least_black_box" in failed(found)


class Unmoved:
    """A deployed model that answers every picture as the clean one."""

    def __init__(self, clean):
        self.clean = clean

    def predict(self, images, samples):
        return victim().predict(torch.stack([self.clean[int(s.id.removeprefix("s"))] for s in samples]), samples)


def test_an_attack_that_8_bit_pictures_undo(attack):
    setup = make_setup("toy")
    sound = attack(short("apgd"), setup=replace(setup, deployed=victim()))
    assert "attack_survives_8_bits" in {check["name"] for check in sound.header.checks} - failed(sound)
    assert all(r.png_score is not None for r in sound.records)
    found = attack(short("apgd"), setup=replace(setup, deployed=Unmoved(setup.images.pixels)))
    assert failed(found) == {"attack_survives_8_bits"}


def test_an_attack_that_returns_what_it_was_given(attack, monkeypatch):
    put_kind(monkeypatch, "apgd", lambda goal, images, *rest: run_apgd(goal, images, *rest)._replace(images=images))
    assert "attack_moves_images" in failed(attack(short("apgd")))


# ---- Verdicts on records ---------------------------------------------------------------------------------


def checks(records, **changes):
    setup = make_setup("toy")
    config = replace(_config(), **changes)
    found = run_checks(config, setup.header, setup.task, records, [])
    return {check["name"]: check["ok"] for check in found}


def _config():
    from bench.config import RunConfig

    return RunConfig(
        suite="mini", encoder="clip", task="zeroshot", dataset="toy", samples=12, attack="apgd", norm="linf",
        eps=(4.0,), seed=0,
    )  # fmt: skip


def records(attacked: list[float], clean=100.0, **changes) -> list[Record]:
    return [
        row
        for k, score in enumerate(attacked)
        for row in (make_record(f"s{k:02d}", score=clean), make_record(f"s{k:02d}", "apgd", 4.0, score, **changes))
    ]


def test_scores_above_clean():
    assert not checks(records([100.0] * 12, clean=50.0))["robust_not_above_clean"]
    assert checks(records([0.0] * 12, clean=50.0))["robust_not_above_clean"]


@pytest.mark.parametrize(
    ("better", "worse", "ok"),
    [(6, 0, True), (7, 0, False), (6, 6, True), (10, 2, True), (11, 1, False), (10, 1, False), (1, 0, True)],
)
def test_scores_above_clean_by_chance(better, worse, ok):
    """The chance that so many of n equal changes, or more, are for the better, against 1 %."""
    n = better + worse
    assert (sum(comb(n, k) for k in range(better, n + 1)) / 2**n >= 0.01) is ok
    assert checks(records([60.0] * better + [40.0] * worse, clean=50.0))["robust_not_above_clean"] is ok


@pytest.mark.parametrize(("score", "ok"), [(0.0, False), (100.0, True)])
def test_an_attack_that_raises_scores_must_not_lower_them(score, ok):
    """As towards a text that the attacker wants said."""
    rows = records([score] * 12, clean=50.0)
    clean, attacked = {row.sample_id: row for row in rows[::2]}, rows[1::2]
    assert sanity_checks._below_clean(attacked, clean, SimpleNamespace(worst="max")).ok is ok


def test_several_questions_about_an_image_are_one_chance():
    rows = records([60.0] * 12, clean=50.0)
    assert not checks(rows)["robust_not_above_clean"]
    rows = [msgspec.structs.replace(row, group="one image") for row in rows]
    assert checks(rows)["robust_not_above_clean"]


@pytest.mark.parametrize(("larger", "ok"), [(0.2, False), (0.25, True), (0.4, True)])
def test_a_loss_that_falls_with_eps(larger, ok):
    rows = records([100.0] * 12)  # loss 0.25
    rows += [make_record(f"s{k:02d}", "apgd", 8.0, 100.0, loss=larger) for k in range(12)]
    assert checks(rows)["loss_grows_with_eps"] is ok


def test_the_loss_of_the_first_image_that_fooled_says_nothing_of_the_radius():
    rows = records([100.0] * 12)  # loss 0.25
    rows += [make_record(f"s{k:02d}", "apgd", 8.0, 0.0, loss=0.1) for k in range(11)]
    rows.append(make_record("s11", "apgd", 8.0, 100.0, loss=0.3))
    assert checks(rows)["loss_grows_with_eps"]
    rows[-1] = make_record("s11", "apgd", 8.0, 100.0, loss=0.2)
    assert not checks(rows)["loss_grows_with_eps"]


def test_the_loss_of_images_that_fooled_at_both_radii_says_nothing_of_the_radius():
    rows = records([0.0] * 12)  # loss 0.25
    rows += [make_record(f"s{k:02d}", "apgd", 8.0, 0.0, loss=0.1) for k in range(12)]
    assert checks(rows)["loss_grows_with_eps"]


def test_the_first_error_is_told():
    rows = [*records([0.0] * 3), make_record("s9", "apgd", 4.0, None, error="out of memory")]
    setup = make_setup("toy")
    (found,) = [c for c in run_checks(_config(), setup.header, setup.task, rows, []) if c["name"] == "no_errors"]
    assert found["detail"] == "1 samples failed; the first: out of memory"


def test_plain_clip_must_be_broken():
    name = "plain_clip_is_broken"
    assert checks(records([0.0] * 11 + [100.0]))[name]
    assert not checks(records([0.0] * 6 + [100.0] * 6))[name]
    assert name not in checks(records([100.0] * 12), encoder="fare4")
    assert name not in checks(records([100.0] * 12), surrogates=("fare4",))
    assert name not in checks(records([100.0] * 12), eps=(2.0,))
    assert name not in checks(records([100.0] * 3))


def test_the_command_line_says_which_checks_failed(tmp_path, monkeypatch):
    failing = {"name": "plain_clip_is_broken", "ok": False, "detail": "the run is not credible"}
    run = make_run(tmp_path, {0: [100.0], 4: [100.0]})
    run.header.checks.extend([failing, {"name": "no_errors", "ok": True, "detail": ""}])
    monkeypatch.setattr(api, "run", lambda **options: api.Result((run,)))
    shown = CliRunner().invoke(main, ["run", "--encoder", "clip", "--task", "vqa", "--json"])
    assert "check failed: plain_clip_is_broken" in shown.stderr
    assert "the run is not credible" in shown.stderr
    assert "no_errors" not in shown.stderr
    assert shown.exit_code == 1


def test_samples_without_a_score_are_a_failure_of_the_command(tmp_path, monkeypatch):
    run = make_run(tmp_path, {0: [100.0], 4: [100.0]}, status="failed")
    run.header.checks.append({"name": "no_errors", "ok": False, "detail": "1 samples failed; the first: out of memory"})
    monkeypatch.setattr(api, "run", lambda **options: api.Result((run,)))
    for more in ([], ["--json"]):
        shown = CliRunner().invoke(main, ["run", "--encoder", "clip", "--task", "vqa", *more])
        assert "the first: out of memory" in shown.stderr
        assert shown.exit_code == 1
        assert "100.0" in shown.stdout


def test_the_toy_is_what_these_tests_need():
    toy = trained_toy()
    assert (toy.model(toy.images).argmax(1) == toy.labels).all()


# ---- Runs that are cut short -----------------------------------------------------------------------------------------


class CutShortError(RuntimeError):
    """As a killed process ends: nothing more is written."""


def test_checks_of_the_first_batch_outlast_a_run_that_is_cut_short(attack, tmp_path, monkeypatch):
    """And the first batch of the process that goes on, which looks sound, does not replace them."""
    once, calls, masked = {"output": tmp_path / "same", "batch_size": 8}, [], spoiled(spoil=KilledGradient.apply)

    def cut(goal, images, threat, context):
        calls.append(len(images))
        if len(calls) == 2:
            raise CutShortError
        return run_apgd(goal, images, threat, context)

    put_kind(monkeypatch, "apgd", cut)
    with pytest.raises(CutShortError):
        attack(short("apgd"), setup=make_setup("toy", source=masked), **once)
    put_kind(monkeypatch, "apgd", run_apgd)
    found = attack(short("apgd"), **once)
    assert "gradient" in failed(found)
    assert len({record.sample_id for record in found.records if record.step != "clean"}) == COUNT


# ---- Models that answer in words -------------------------------------------------------------------------------------


def _noisy(original):
    noise = torch.Generator().manual_seed(0)

    def spoilt(self, images, *rest):
        return original(self, images + 0.05 * torch.rand(images.shape, generator=noise), *rest)

    return spoilt


def _killed(original):
    return lambda self, images, *rest: original(self, KilledGradient.apply(images), *rest)


def _rounded(original):
    return lambda self, images, *rest: original(self, (images * 32).round() / 32, *rest)


@pytest.mark.parametrize("task", ["vqa", "captioning", "stealth"])
@pytest.mark.parametrize(("defence", "check"), [(_noisy, "repeatable"), (_killed, "gradient"), (_rounded, "gradient")])
def test_a_defence_that_hides_gradients_fails_a_check_in_every_task(tmp_path, monkeypatch, task, defence, check):
    monkeypatch.setattr(Encoder, "patch_tokens", defence(Encoder.patch_tokens))
    step = AttackStep("one", "apgd", 2, "target" if task == "stealth" else "reference-0", "random", 2.0)
    assert check in failed(_text_run(tmp_path, monkeypatch, task, step))


@pytest.mark.parametrize("task", ["vqa", "captioning", "stealth"])
def test_an_attack_that_does_nothing_fails_a_check_in_every_task(tmp_path, monkeypatch, task):
    put_kind(monkeypatch, "idle", lambda goal, images, *rest: run_apgd(goal, images, *rest)._replace(images=images))
    step = AttackStep("one", "idle", 2, "target" if task == "stealth" else "reference-0", "random", 2.0)
    assert "attack_moves_images" in failed(_text_run(tmp_path, monkeypatch, task, step))


def _text_run(tmp_path, monkeypatch, task, step):
    monkeypatch.setitem(PRESETS, "brief", Preset("", (step,)))
    request = Request.of(encoder="fare", task=task, limit=4, attack="brief", eps=4, output=tmp_path)
    return load_run(execute(resolve(request)[0]))
