"""Runs for which memory does not suffice, and steps that failed."""

from dataclasses import replace

import torch

from attacks.objective import Classification, Progress
from bench.batch_size import TOO_LARGE
from tests.bench.toy_runs import (
    RADIUS,
    Boastful,
    bare,
    make_setup,
    robust,
    short,
    victim,
)
from tests.toys import trained_toy


class Narrow:
    """Memory for a number of images at once, and none at all for the images of some samples."""

    def __init__(self, room, shut_out=()):
        toy = trained_toy()
        self.room, self.refused, self.sizes = room, toy.images[list(shut_out)], []

    def __call__(self, images):
        near = (images.detach()[:, None] - self.refused).abs().flatten(2).amax(2) < 0.07 + RADIUS / 255
        if len(images) > self.room or bool(near.any()):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        self.sizes.append(len(images))
        return images


def test_too_little_memory_for_a_batch_changes_no_result(attack):
    narrow = Narrow(5)
    starved = attack(short("apgd"), setup=make_setup("toy", asked=victim(spoil=narrow)))
    assert bare(starved.records) == bare(attack(short("apgd")).records)
    assert max(narrow.sizes) <= 5


def test_too_little_memory_for_a_volley_takes_its_steps_one_by_one(attack):
    steps = short("autoattack")
    starved = attack(steps, setup=make_setup("toy", asked=victim(spoil=Narrow(1))))
    assert robust(starved) == robust(attack(steps))
    assert starved.header.status == "complete"


def test_a_sample_that_does_not_fit_alone_is_an_error_and_no_other_is_lost(attack):
    starved = attack(short("apgd"), setup=make_setup("toy", asked=victim(spoil=Narrow(24, shut_out=[3]))))
    failed = {r.sample_id: r.error for r in starved.records if r.error}
    assert failed == {"s03": TOO_LARGE}
    assert starved.header.status == "failed"
    others = [[row for row in bare(one.records) if row[0] != "s03"] for one in (starved, attack(short("apgd")))]
    assert others[0] == others[1]


def test_a_step_that_failed_is_taken_again_by_the_same_command(attack, tmp_path):
    """And the steps after it are not held back: what a radius comes to is the worst of all that went well."""
    steps = [replace(step, start="clean", volley="") for step in short("autoattack")[:3]]

    class Failing(Boastful):
        def objective(self, images, samples, goal):
            inner = self.honest.objective(images, samples, goal)
            return lambda x, rows: Progress(inner(x, rows).loss * torch.nan, inner(x, rows).fooled)

    once = {"output": tmp_path / "same"}
    first = attack(steps, setup=make_setup("toy", source=Failing(victim()), asked=victim()), **once)
    assert {r.step for r in first.records if r.error} == {step.name for step in steps}
    assert first.header.status == "failed"
    again = attack(steps, **once)
    assert again.header.status == "complete"
    assert robust(again) == robust(attack(steps))


def test_the_toy_is_a_classifier_like_any():
    """The tests above speak of the runner only if this victim is what the runner sees elsewhere."""
    asked = victim()
    goal = asked.objective(trained_toy().images[:3], make_setup("toy").samples[:3], "untargeted")
    assert isinstance(goal, Classification)
