"""The trainer: objectives against hand-computed cases, schedule, resume after a kill, refusals."""

import math
import signal
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from attacks.objective import Progress, squared_l2
from attacks.pgd import pgd
from attacks.threat import ThreatModel
from bench.train.adversarial import finetune
from bench.train.batch import Batch
from bench.train.checkpoint import TrainingError
from bench.train.loop import fit, step_generator
from bench.train.recipe import Recipe
from bench.train.schedule import Schedule
from tests.commands import start


def test_schedule_warms_up_from_the_first_update_and_decays_to_zero():
    schedule = Schedule(steps=100, batch=1, learning_rate=1.0, warmup=10)
    assert schedule.rate(0) == pytest.approx(0.1)  # the reference code takes its first update at the full rate
    assert schedule.rate(9) == schedule.rate(10) == 1.0
    assert schedule.rate(55) == pytest.approx(0.5)
    assert schedule.rate(100) == pytest.approx(0.0)


def test_eps_ramp():
    recipe = Recipe("tecoa", 4, Schedule(100, 1, 1.0), ramp=0.5)
    assert recipe.radius(24) == pytest.approx(2 / 255)
    assert recipe.radius(50) == recipe.radius(99) == pytest.approx(4 / 255)


class _Tower(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3 * 4 * 4, 5)

    def forward(self, images):
        return torch.tanh(self.linear(images.flatten(1)))


def _towers():
    torch.manual_seed(0)
    tower, original = _Tower(), _Tower()
    original.load_state_dict(tower.state_dict())
    return tower, original


def _batches(step):
    return Batch(torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(step)))


def test_fare_makes_a_tower_steadier_and_leaves_the_original_alone(tmp_path):
    tower, original = _towers()
    before = {k: v.clone() for k, v in original.state_dict().items()}
    recipe = Recipe("fare", 16, Schedule(60, 8, 3e-3), inner_step_255=4)
    finetune("t", tower, original, recipe, _batches, tmp_path)
    assert all(torch.equal(v, before[k]) for k, v in original.state_dict().items())
    images = _batches(10**6).images

    def worst(model):
        """The largest squared drift that PGD finds, per image."""

        def objective(candidates, rows):
            loss = squared_l2(model(candidates), model(images)[rows])
            return Progress(loss, torch.zeros_like(loss, dtype=torch.bool))

        threat = ThreatModel("linf", 16 / 255)
        start = threat.random_start(images, [torch.Generator().manual_seed(i) for i in range(len(images))])
        return pgd(objective, images, threat, steps=20, step_size=4 / 255, init=start).loss.mean()

    assert worst(tower) < 0.8 * worst(original)


def test_resumed_training_equals_uninterrupted_training(tmp_path):
    whole, original = _towers()
    recipe = Recipe("fare", 4, Schedule(12, 8, 1e-3, warmup=3))
    finetune("t", whole, original, recipe, _batches, tmp_path / "whole")

    class Interrupted(Exception):  # noqa: N818
        pass

    def failing(step):
        if step == 7:
            raise Interrupted
        return _batches(step)

    halted, original = _towers()
    with pytest.raises(Interrupted):
        finetune("t", halted, original, recipe, failing, tmp_path / "halted", checkpoint_every=5)
    fresh, original = _towers()
    finetune("t", fresh, original, recipe, _batches, tmp_path / "halted")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), fresh.parameters(), strict=True))


def train_long(work, out):
    """Says that it is going, and leaves its weights in the end."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = nn.Linear(6, 1)

    def loss(step):
        x = torch.randn(32, 6, generator=step_generator(0, step))
        if step == 3:
            (work / "going").touch()
        return (model(x) - x.sum(1, keepdim=True)).square().mean(), {}

    fit("child", {"m": model}, loss, Schedule(400, 32, 1e-2), work, settings={}, checkpoint_every=1)
    torch.save(model.state_dict(), out)


def test_training_killed_at_any_moment_ends_with_the_same_weights(tmp_path):
    whole, killed = ((tmp_path / name, tmp_path / f"{name}.pt") for name in ("whole", "killed"))
    straight = start(train_long, *whole)
    assert straight.wait() == 0, straight.stderr
    child = start(train_long, *killed)
    while not (killed[0] / "going").exists():
        assert child.poll() is None, child.stderr
        time.sleep(0.001)
    child.send(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not killed[1].exists()
    assert start(train_long, *killed).wait() == 0
    wanted, found = (torch.load(out, weights_only=True) for _, out in (whole, killed))
    assert all(torch.equal(wanted[k], found[k]) for k in wanted)


def _fit(directory: Path, loss, *, settings=None, rate=1e-2):
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    fit("t", {"m": model}, lambda step: loss(model, step), Schedule(4, 1, rate), directory, settings=settings or {})


def _fine(model, step):
    return model(torch.ones(1, 2)).square().sum(), {}


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(tmp_path):
    def broken(model, step):
        loss, figures = _fine(model, step)
        return loss * (math.nan if step == 2 else 1), figures

    with pytest.raises(TrainingError, match="nan at step 2"):
        _fit(tmp_path, broken)


@pytest.mark.parametrize(("changed", "name"), [({"rate": 1e-3}, "--lr"), ({"settings": {"eps": 2}}, "eps")])
def test_other_settings_on_resume_are_refused_by_name(tmp_path, changed, name):
    _fit(tmp_path, _fine)
    with pytest.raises(TrainingError, match=name):
        _fit(tmp_path, _fine, **changed)
