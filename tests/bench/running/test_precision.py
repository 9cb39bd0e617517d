"""Attacks in half precision, and successes that the victim does not confirm."""

from dataclasses import replace

import pytest

from attacks.kinds import run_apgd
from bench.running.load import HalfPrecision
from tests.bench.toy_runs import (
    COUNT,
    Boastful,
    ToyEncoder,
    make_setup,
    put_kind,
    robust,
    short,
    victim,
)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("protocol", ["strict", "paper"])
def test_a_success_that_the_victim_does_not_see_is_attacked_on(attack, precision, protocol):
    """As where an answer that counts begins with another token than all accepted answers."""
    half = HalfPrecision(Boastful(victim()), ToyEncoder()) if precision != "float32" else None
    boasting = attack(short("apgd"), setup=make_setup("toy", asked=Boastful(victim()), half=half), precision=precision,
                      protocol=protocol)  # fmt: skip
    honest = attack(short("apgd"), protocol=protocol)
    assert robust(boasting) == robust(honest)
    assert 0 < len(robust(honest)) < COUNT
    spent = {r.sample_id: r.evaluations for r in boasting.records if r.step != "clean"}
    assert set(spent.values()) == {12}, "all steps of one attack, none of the one that stopped at once"
    assert all(r.distance > 0 for r in boasting.records if r.step != "clean" and r.score == 0)


def test_a_success_that_is_one_is_not_attacked_again(attack, monkeypatch):
    seen = []
    put_kind(monkeypatch, "apgd", lambda *call: (seen.append(call[-1].stop_when_fooled), run_apgd(*call))[1])
    attack(short("apgd"))
    assert seen == [True]


def coarse(images):
    """A model in very low precision: its gradients are right, its answers often wrong."""
    return images + ((images * 16).round() / 16 - images).detach()


def halved(**options):
    rough = victim(**options)
    return HalfPrecision(rough, rough.encoder)


def test_an_attack_in_half_precision_is_no_weaker_than_one_in_float32(attack):
    full = attack(short("autoattack"))
    mixed = attack(short("autoattack"), setup=make_setup("toy", half=halved(spoil=coarse)), precision="bf16")
    assert robust(mixed) <= robust(full)
    assert all(r.error is None for r in mixed.records)


def test_what_cannot_be_broken_in_half_precision_is_attacked_in_float32(attack):
    deaf = halved(spoil=lambda images: images.detach() + 0 * images)  # no gradient: this attack finds nothing
    mixed = attack(short("apgd"), setup=make_setup("toy", half=deaf), precision="fp16")
    full = attack(short("apgd"))
    assert robust(mixed) == robust(full)
    cost = {r.sample_id: r.evaluations for r in full.records if r.step != "clean"}
    assert all(r.evaluations > cost[r.sample_id] for r in mixed.records if r.step != "clean" and r.score == 100)


def test_an_answer_in_half_precision_counts_only_where_the_protocol_says_so(attack):
    wrong = halved(spoil=lambda images: 0 * images)  # says the same of every image
    setup = make_setup("toy", half=wrong)
    strict = attack(short("apgd", 1), setup=setup, precision="fp16")
    paper = attack(short("apgd", 1), setup=setup, precision="fp16", protocol="paper")
    clean = [{r.sample_id: r.score for r in found.records if r.step == "clean"} for found in (strict, paper)]
    assert set(clean[0].values()) == {100.0}
    assert min(clean[1].values()) == 0.0


def test_a_step_in_single_precision_ignores_the_half_precision_model(attack):
    setup = make_setup("toy", half=halved())
    attack([replace(step, precision="float32") for step in short("apgd")], setup=setup, precision="bf16")
    assert setup.half.encoder.seen == []


@pytest.mark.parametrize(("protocol", "wanted"), [("strict", "start"), ("paper", "reference")])
def test_the_protocol_settles_the_first_checkpoint(attack, monkeypatch, protocol, wanted):
    seen = []
    put_kind(monkeypatch, "apgd", lambda *call: (seen.append(call[-1].first_checkpoint), run_apgd(*call))[1])
    attack(short("apgd", 2), protocol=protocol)
    assert set(seen) == {wanted}
