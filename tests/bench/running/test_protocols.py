"""What the protocol "paper" does otherwise than "strict": each radius by itself, no shortcuts, no early end."""

from dataclasses import replace

import pytest
import torch

from attacks.kinds import run_apgd
from attacks.presets import PRESETS, AttackStep
from bench.config import Request, resolve
from bench.records import CLEAN
from bench.records.images import saved_paths
from bench.records.worst import kept_records, worst_scores
from bench.running.loop import best_goal
from bench.verify import verify
from tests.bench.runs import make_record
from tests.bench.toy_runs import COUNT, RADIUS, make_setup, put_kind, short

RADII = (RADIUS, 2 * RADIUS)


@pytest.fixture
def weaker_at_the_larger_radius(monkeypatch):
    """An attack that does nothing at the larger radius, and notes whom it attacked where."""
    asked = []

    def weak(goal, images, threat, context):
        asked.append((round(threat.eps * 255), len(images)))
        found = run_apgd(goal, images, threat, context)
        if threat.eps > 1.5 * RADIUS / 255:
            return found._replace(images=images, fooled=torch.zeros_like(found.fooled))
        return found

    put_kind(monkeypatch, "apgd", weak)
    return asked


def test_strict_radii_are_cumulative(attack, weaker_at_the_larger_radius):
    found = attack(short("apgd"), eps=RADII, setup=make_setup("toy", eps=RADII))
    small, large = (worst_scores(found.header, found.records, radius) for radius in RADII)
    broken = sum(score == 0 for score in small.values())
    assert 0 < broken < COUNT
    assert large == small
    assert weaker_at_the_larger_radius == [(16, COUNT), (32, COUNT - broken)]


def test_the_papers_radii_are_attacked_and_scored_each_by_itself(attack, weaker_at_the_larger_radius):
    found = attack(short("apgd"), eps=RADII, setup=make_setup("toy", eps=RADII), protocol="paper")
    small, large = (worst_scores(found.header, found.records, radius) for radius in RADII)
    assert 0 < sum(score == 0 for score in small.values()) < COUNT
    assert set(large.values()) == {100.0}, "what broke at the smaller radius is not inherited"
    assert weaker_at_the_larger_radius == [(16, COUNT), (32, COUNT)]


def test_the_papers_images_are_those_of_their_radius(attack):
    options = {"eps": RADII, "setup": make_setup("toy", eps=RADII), "save_adversarial": True}
    strict, paper = (attack(short("apgd"), protocol=protocol, **options) for protocol in ("strict", "paper"))
    for found in (strict, paper):
        wanted = {(radius, sample) for sample, radius in kept_records(found.header, found.records)}
        saved = {(radius, path.stem) for radius, path in saved_paths(found.directory / "adversarial") if radius}
        assert saved == wanted
        assert {r.sample_id for r in found.records if r.step == CLEAN and r.score is not None} == {
            path.stem for radius, path in saved_paths(found.directory / "adversarial") if not radius
        }
    twice = {sample for radius, sample in saved if radius == RADII[0]} & {s for r, s in saved if r == RADII[1]}
    assert twice, "some sample broke at both radii"


def test_a_start_from_the_worst_image_takes_that_of_its_own_radius(attack, monkeypatch):
    starts = []

    def spy(goal, images, threat, context):
        if context.step.name == "again":
            starts.append((round(threat.eps * 255), float((context.init - images).abs().max() * 255)))
            return run_apgd(goal, images, threat, context)
        moved = (images + 0.5 * threat.eps).clamp(0, 1)
        outcome = run_apgd(goal, images, threat, replace(context, step=replace(context.step, steps=0), init=moved))
        return outcome._replace(images=images if threat.eps > 1.5 * RADIUS / 255 else moved)

    put_kind(monkeypatch, "apgd", spy)
    first = AttackStep("first", "apgd", 1, "untargeted", "clean", 1.0)
    again = AttackStep("again", "apgd", 1, "best", "best", 1.0)
    attack([first, again], eps=RADII, setup=make_setup("toy", eps=RADII), protocol="paper")
    assert [distance for radius, distance in starts if radius == 32] == [0.0], "no image of 16/255"


def test_the_best_goal_is_that_of_the_radius_where_each_counts_by_itself():
    steps = [AttackStep(name, "apgd", 1, name, "clean", 1.0) for name in ("reference-0", "reference-1")]
    records = [
        make_record(step="clean", radius=0.0, score=50.0),
        make_record(step="reference-1", radius=2.0, score=10.0),
        make_record(step="reference-0", radius=4.0, score=20.0),
    ]
    assert best_goal(steps, records, 4.0, "min") == "reference-1"
    assert best_goal(steps, records, 4.0, "min", lambda recorded, radius: recorded in (0, radius)) == "reference-0"


def of_both_protocols(task, attack):
    return (
        resolve(Request.of(encoder="clip", task=task, attack=attack, protocol=protocol))[0]
        for protocol in ("strict", "paper")
    )


def test_the_papers_protocol_has_the_published_steps():
    strict, paper = of_both_protocols("stealth", "stealth")
    assert strict.steps == PRESETS["stealth"].steps
    assert paper.steps == PRESETS["stealth"].published
    strict, paper = of_both_protocols("stealth", "stealth-500")  # nothing of it is published
    assert strict.steps == paper.steps


def test_shortcuts_are_left_out_under_the_papers_protocol():
    strict, paper = of_both_protocols("zeroshot", "autoattack")
    assert {step.name for step in strict.steps} - {step.name for step in paper.steps} == {"apgd-ce-10"}
    assert [step for step in strict.steps if not step.shortcut] == list(paper.steps)
    assert all("shortcut" not in step.as_data() for step in strict.steps)


def test_a_paper_run_with_two_radii_is_verified(tmp_path):
    from bench.records import load_run
    from bench.running.loop import execute

    options = {"task": "zeroshot", "dataset": "mini-shape", "attack": "pgd", "eps": "2,4", "limit": 4}
    (config,) = resolve(
        Request.of(encoder="fare2", protocol="paper", save_adversarial=True, output=tmp_path, **options)
    )
    run = load_run(execute(config))
    assert run.header.protocol["cumulative_radii"] is False
    assert verify(run, progress=False).mismatches == ()
