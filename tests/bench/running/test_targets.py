"""Attacks towards targets, end to end on the miniature: each preset, each task, the judge in the record."""

import json
from dataclasses import replace
from importlib.metadata import EntryPoint

import pytest
import torch

import bench
from attacks.presets import PRESETS, Preset
from bench import registry
from bench.config import Request, resolve
from bench.config.facts import SUITE_FACTS
from bench.errors import UsageError
from bench.models.encoders.load import load_encoder
from bench.models.judges import load_judge
from bench.records import CLEAN
from bench.regression.rerun import can_run_in_part
from bench.running.load import prepare
from bench.tables.layouts import build
from bench.verify import verify
from tasks.features import TowardsSaid
from tests.bench.models.victims.endpoint.server import serving

ASKED = {"limit": 4, "eps": 16, "jobs": 1, "device": "cpu", "progress": False, "encoder": "clip"}


@pytest.fixture
def short(monkeypatch):
    """The published attacks with few of their steps."""
    for name in ("m-attack", "foa-attack", "attackvlm-ii", "attackvlm-it", "attackvlm-tt", "veattack", "ssa-cwa"):
        few = {"queries": {"queries": 2}, "common-weakness": {"spectrum": 2}}
        steps = tuple(
            replace(step, steps=min(step.steps, 30 if step.kind != "queries" else 2), options=few.get(step.kind, {}))
            for step in PRESETS[name].steps
        )
        monkeypatch.setitem(PRESETS, name, Preset("", steps))


def one(output, **options):
    options = ASKED | {"output": output} | options
    if options.get("attack") == "none":
        del options["eps"]
    (run,) = bench.run(**options).runs
    return run


def test_images_that_lead_to_a_target_are_taken_for_it_and_verified(tmp_path, short):
    run = one(tmp_path, task="keywords", attack="attackvlm-ii", save_adversarial=True, limit=8)
    assert run.header.judge == "words"
    clean, led = ([r.score for r in run.records if (r.step == CLEAN) == is_clean] for is_clean in (True, False))
    assert sum(led) / len(led) > sum(clean) / len(clean) + 10
    assert not [r.error for r in run.records if r.error]
    assert verify(run, progress=False).mismatches == ()


@pytest.mark.parametrize(
    "attack", ["foa-attack", "attackvlm-ii", "attackvlm-it", "attackvlm-tt", "veattack", "ssa-cwa"]
)
def test_each_published_attack_runs_on_an_ensemble(tmp_path, short, attack):
    run = one(tmp_path, task="target-text", attack=attack, surrogate="clip,tecoa2", ensemble="mean", limit=2)
    assert {r.step for r in run.records} == {CLEAN, *(step.name for step in PRESETS[attack].steps)}
    assert not [r.error for r in run.records if r.error]
    assert run.header.judge == "text?encoders=clip"
    assert "judge clip" in run.header.weights


def test_the_victims_own_captions_of_the_targets_are_what_counts(tmp_path, short):
    run = one(tmp_path, task="target-caption", attack="m-attack", save_adversarial=True)
    (config,) = resolve(Request.of(**run.header.config))
    setup = prepare(replace(config, attack="none"))
    targets = torch.stack([setup.victim.model.preprocess(s.target.image) for s in setup.samples])
    said = [answer.text for answer in setup.victim.predict(targets, setup.samples)]
    assert [s.references for s in setup.samples] == [(text,) for text in said]
    written = [json.loads(line)["references"] for line in (run.directory / "samples.jsonl").read_text().splitlines()]
    assert written == [[text] for text in said]
    assert verify(run, progress=False).mismatches == ()


def test_the_target_that_is_queried_is_the_victims_answer():
    victim = type("Says", (), {"predict": lambda self, images, samples: said})()
    (config,) = resolve(Request.of(encoder="clip", task="target-text", attack="none", limit=2, device="cpu"))
    samples, encoder = prepare(config).samples, load_encoder("clip")
    from tasks.base import NOT_FINITE, Answer

    said = [Answer(samples[0].target.text), Answer("", NOT_FINITE)]
    loss = TowardsSaid(encoder, victim, samples)(torch.zeros(2, 3, 4, 4), torch.arange(2)).loss
    assert float(loss[0]) == pytest.approx(1.0, abs=1e-5)
    assert loss[1].isnan()


def test_an_attack_that_leads_to_a_target_needs_one():
    for attack, words in (("m-attack", "a target image"), ("attackvlm-it", "a target text")):
        (config,) = resolve(Request.of(encoder="clip", task="vqa", attack=attack, limit=2, device="cpu"))
        with pytest.raises(UsageError, match=f"needs {words} for each sample, and dataset 'mini-vqa' has none"):
            prepare(config)
    (config,) = resolve(Request.of(encoder="clip", task="keywords", defence="jpeg", limit=2, device="cpu"))
    with pytest.raises(UsageError, match="leads to a target, which no adaptive protocol does"):
        prepare(config)


def test_judges_are_refused_where_nothing_is_judged_and_by_name():
    with pytest.raises(UsageError, match="--judge is for keywords, target-text and target-caption, not vqa"):
        resolve(Request.of(encoder="clip", task="vqa", judge="words"))
    with pytest.raises(UsageError, match="unknown judge 'wrds'; did you mean 'words'"):
        resolve(Request.of(encoder="clip", task="keywords", judge="wrds"))
    with pytest.raises(UsageError, match="judge 'text' has the setting encoders=A,B"):
        load_judge("text?towers=clip", "mini")


def test_text_towers_give_the_mean_cosine():
    judge = load_judge("text?encoders=clip,fare2", "mini")
    assert judge.name == "text?encoders=clip,fare2"
    texts = ["a red bar", "a blue ring"]
    one, other = load_encoder("clip").text.embed(texts)
    assert judge(*texts[:1], texts[1:]) == pytest.approx(float(one @ other), abs=1e-6)  # FARE keeps the text tower
    assert judge("a star", ["a star"]) == pytest.approx(1.0, abs=1e-6)


def test_a_language_model_judges_as_a_plugin_and_its_name_is_in_the_record(tmp_path, monkeypatch, short):
    point = EntryPoint("asked", "tests.plugin.example_judge:asked", "bench.judges")
    found = registry.plugins
    monkeypatch.setattr(
        registry, "plugins", lambda group: {"asked": point} if group == "bench.judges" else found(group)
    )
    with serving(lambda body, visit: "0.25") as server:
        url = server.vlm.removeprefix("openai:").partition("#")[0]
        judged = one(
            tmp_path, task="target-text", attack="none", judge=f"asked?url={url}&model=mini", save_adversarial=True
        )
    assert judged.header.judge == "asked?model=mini"
    with pytest.raises(UsageError, match="is a plugin's, which nobody asks because a file says so"):
        verify(judged)
    assert not can_run_in_part(judged)
    assert {r.score for r in judged.records} == {25.0}
    towers = one(tmp_path, task="target-text", attack="none")
    with pytest.raises(UsageError, match=r"runs of different judges do not go into one table.*--where judge="):
        build("targets", [judged, towers], SUITE_FACTS)
