"""Training objectives against hand-computed cases; recipes; the inner attack against independent implementations."""

import math
from importlib.metadata import EntryPoint

import pytest
import torch
from torch import nn

from attacks.objective import squared_l2
from attacks.threat import ThreatModel
from bench import registry
from bench.errors import UsageError
from bench.train.adversarial import finetune, learning_rate
from bench.train.attack import attack
from bench.train.batch import Batch
from bench.train.loop import step_generator
from bench.train.objectives import (
    Features,
    Target,
    classes_of,
    cosine,
    fare,
    fare_patches,
    given,
    load_objective,
    objective,
    tecoa,
)
from bench.train.recipe import FLAWS, PAPER, Recipe, paper_flaws
from bench.train.schedule import Schedule
from bench.train.step import Stepper


def test_fare_is_the_summed_squared_difference():
    """No square root, no mean over dimensions, no normalisation (paper, equation 3)."""
    attacked = Features(torch.tensor([[3.0, 4.0], [1.0, 1.0]]))
    target = Target(original=Features(torch.tensor([[0.0, 0.0], [1.0, 3.0]])))
    assert fare.loss(attacked, target).tolist() == [25.0, 4.0]


def test_tecoa_is_cross_entropy_of_scaled_cosines():
    target = Target(labels=torch.tensor([1]), classes=classes_of(torch.eye(2), 10.0))  # two classes along the axes
    value = tecoa.loss(Features(torch.tensor([[3.0, 4.0]])), target)
    assert value.item() == pytest.approx(math.log(1 + math.exp(10 * (0.6 - 0.8))), rel=1e-5)


def test_cosine_is_the_negative_cosine_with_one_side_held_fixed_at_a_time():
    attacked, clean = torch.tensor([[1.0, 0.0]], requires_grad=True), torch.tensor([[3.0, 4.0]], requires_grad=True)
    loss = cosine.loss(Features(attacked), Target(clean=Features(clean)))
    assert loss.item() == pytest.approx(-0.6)
    loss.sum().backward()
    # d cos(a, c) / da at a = (1, 0), c = (0.6, 0.8): (0, 0.8); each side gets half of it.
    assert attacked.grad.tolist()[0] == pytest.approx([0.0, -0.4], abs=1e-6)
    # d cos / dc at |c| = 5: (a - 0.6 c/|c|) / 5 = (0.64, -0.48) / 5
    assert clean.grad.tolist()[0] == pytest.approx([-0.064, 0.048], abs=1e-6)


def test_the_patch_term_weighs_relative_drift_as_the_embedding_does():
    original = Features(torch.tensor([[3.0, 4.0]]), torch.tensor([[[1.0, 0.0], [0.0, 3.0]]]))  # mean |token|^2 is 5
    attacked = Features(torch.tensor([[3.0, 6.0]]), torch.tensor([[[1.0, 2.0], [0.0, 3.0]]]))  # mean drift^2 is 2
    assert fare_patches.loss(attacked, Target(original=original)).item() == pytest.approx(4 + 2 / 5 * 25)


def test_an_objective_that_hides_a_need_is_found_out():
    with pytest.raises(UsageError, match="needs"):
        fare.loss(Features(torch.ones(1, 2)), Target())


def test_objectives_of_other_packages(monkeypatch):
    points = {
        "mine": EntryPoint("mine", "bench.train.objectives:cosine", "bench.objectives"),
        "wrong": EntryPoint("wrong", "bench.train.objectives:classes_of", "bench.objectives"),
    }
    monkeypatch.setattr(registry, "plugins", lambda group: points if group == "bench.objectives" else {})
    assert load_objective("mine") is cosine
    with pytest.raises(UsageError, match="not a TrainingObjective"):
        load_objective("wrong")
    with pytest.raises(UsageError, match="did you mean 'fare'"):
        load_objective("farre")


def test_constants_of_the_paper():
    assert (PAPER.steps, PAPER.batch, PAPER.learning_rate, PAPER.warmup) == (20_000, 128, 1e-5, 1400)
    assert (PAPER.weight_decay, PAPER.betas, PAPER.clip_norm) == (1e-4, (0.9, 0.999), None)
    recipe = Recipe("fare", 4, PAPER)
    assert (recipe.inner_steps, recipe.inner_step_255, recipe.ramp, recipe.clean_weight) == (10, 1.0, 0.0, 0.0)
    assert set(paper_flaws("pgd")) | set(paper_flaws("apgd")) == FLAWS.keys()
    assert "last-iterate" not in paper_flaws("apgd")
    assert "apgd-misclassified" not in paper_flaws("pgd")


def test_the_published_code_takes_its_first_update_at_the_full_rate():
    schedule = Schedule(steps=100, batch=1, learning_rate=1.0, warmup=10)
    flawed = learning_rate(Recipe("fare", 4, schedule, flaws=("first-update-at-full-rate",)))
    corrected = learning_rate(Recipe("fare", 4, schedule))
    assert (flawed(0), flawed(1)) == (1.0, 0.2)
    assert (corrected(0), corrected(1)) == (0.1, 0.2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flaws": ("typo",)}, "unknown flaw 'typo'"),
        ({"eps_255": 0}, "eps"),
        ({"clean_weight": 1.0}, "clean weight"),
        ({"attack": "fab"}, "attack must be"),
        ({"inner_steps": 0}, "steps >= 1"),
    ],
)
def test_bad_recipes_are_refused(change, message):
    with pytest.raises(UsageError, match=message):
        Recipe(**{"objective": "fare", "eps_255": 4.0, "schedule": PAPER, **change})


class _Net(nn.Module):
    def __init__(self, width: int = 5) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.Tanh(), nn.Linear(16, width))
        self.net[1].weight.data *= 30  # rough, so that the last iterate is not always the best

    def forward(self, images):
        return self.net(images)


@pytest.fixture(name="case")
def _case():
    """A net, images of which many pixels lie at the edge of the box, a target and noise."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(6, 3, 4, 4, generator=generator).mul(1.6).sub(0.3).clamp(0, 1)
    net = _Net().requires_grad_(False)
    with torch.no_grad():
        anchor = net(images)
    target = Target(Features(anchor), labels=torch.tensor([0, 1, 2, 3, 4, 0]))
    return net, images, target, torch.rand(images.shape, generator=generator)


def _attacked(case, **changes):
    net, images, target, noise = case
    recipe = Recipe("fare", 8, Schedule(4, 6, 1e-3), inner_step_255=2.0, **changes)
    return attack(lambda x: Features(net(x)), fare.loss, images, target, noise, recipe, 0)


def test_the_default_attack_is_sign_ascent_bit_for_bit(case):
    """Against a literal loop: sign steps, projection, the iterate of highest loss."""
    net, clean, target, noise = case
    eps = 8 / 255
    lower, upper = (clean - eps).clamp(min=0), (clean + eps).clamp(max=1)
    current = (clean + eps * (2 * noise - 1)).clamp(lower, upper)
    iterates, losses = [], []
    for _ in range(11):
        current = current.detach().requires_grad_()
        loss = squared_l2(net(current), target.original.embedding)
        (gradient,) = torch.autograd.grad(loss.sum(), current)
        iterates.append(current.detach())
        losses.append(loss.detach())
        current = (current + 2 / 255 * gradient.sign()).clamp(lower, upper)
    best = torch.stack(losses).argmax(0)
    assert 0 < best.float().mean() < 10, "the last iterate is the best of some images, not of all"
    found = _attacked(case)
    assert torch.equal(found.images, torch.stack(iterates)[best, torch.arange(6)])
    assert found.finite.all()


def _published_pgd(net, images, anchor, noise, eps, size, steps):
    """PROTOCOL: the start is not clipped, the velocity is re-signed, the last iterate is returned."""
    delta = eps * (2 * noise - 1)
    velocity = torch.zeros_like(delta)
    for _ in range(steps):
        delta = delta.detach().requires_grad_()
        loss = ((net(images + delta) - anchor) ** 2).sum(1).mean()
        (gradient,) = torch.autograd.grad(loss, delta)
        velocity = (0.9 * velocity + gradient.sign()).sign()
        delta = (delta + size * velocity).detach().clamp(-eps, eps)
        delta = (images + delta).clamp(0, 1) - images
    return (images + delta).detach()


def test_the_paper_recipe_attacks_as_the_published_code_does(case):
    net, images, target, noise = case
    expected = _published_pgd(net, images, target.original.embedding, noise, 8 / 255, 2 / 255, 10)
    found = _attacked(case, flaws=paper_flaws("pgd"))
    assert torch.allclose(found.images, expected, atol=1e-6)


def test_the_paper_recipe_trains_as_the_published_code_does(case, tmp_path):
    """Whole updates against a literal loop: attack, loss, AdamW on all weights, rate set after each update."""
    steps, warmup, rate = 12, 4, 1e-2
    recipe = Recipe("fare", 8, Schedule(steps, 6, rate, warmup), inner_step_255=2.0, flaws=paper_flaws("pgd"))
    noises = [torch.rand(6, 3, 4, 4, generator=step_generator(0, step)) for step in range(steps)]
    images = case[1]
    ours, original, plain = (_Net() for _ in range(3))
    finetune("t", ours, original, recipe, lambda step: Batch(images), tmp_path)

    optimizer = torch.optim.AdamW(plain.parameters(), lr=rate, weight_decay=1e-4)
    with torch.no_grad():
        anchor = original(images)
    for done in range(1, steps + 1):
        attacked = _published_pgd(plain, images, anchor, noises[done - 1], 8 / 255, 2 / 255, 10)
        optimizer.zero_grad()
        ((plain(attacked) - anchor) ** 2).sum(1).mean().backward()
        optimizer.step()
        n = done
        for group in optimizer.param_groups:
            cosine = 0.5 * (1 + math.cos(math.pi * (n - warmup) / (steps - warmup)))
            group["lr"] = rate * (n + 1) / warmup if n < warmup else rate * cosine
    moved = max((a - b).abs().max() for a, b in zip(plain.parameters(), original.parameters(), strict=True))
    apart = max((a - b).abs().max() for a, b in zip(plain.parameters(), ours.parameters(), strict=True))
    assert apart < 1e-4 * moved


@pytest.mark.parametrize("flaw", ["first-gradient-outside-box", "last-iterate"])
def test_each_flaw_of_pgd_changes_the_images_and_none_leaves_the_ball(case, flaw):
    images = case[1]
    default, flawed = _attacked(case), _attacked(case, flaws=(flaw,))
    assert not torch.equal(default.images, flawed.images)
    assert ThreatModel("linf", 8 / 255).contains(flawed.images, images).all()


def test_a_start_outside_the_box_is_never_the_result(case):
    """Where pushing out of the box pays most and steps are too small to change that."""
    _, images, _, noise = case
    target = Target(Features(images.flatten(1)))
    recipe = Recipe("fare", 8, PAPER, inner_step_255=1e-4, flaws=("first-gradient-outside-box",))
    found = attack(lambda x: Features(x.flatten(1)), fare.loss, images, target, noise, recipe, 0).images
    assert found.min() >= 0
    assert found.max() <= 1


def test_inert_momentum_does_nothing(case):
    """sign(0.9 v + sign g) is sign g wherever g is not zero."""
    assert torch.equal(_attacked(case).images, _attacked(case, flaws=("inert-momentum",)).images)


def test_apgd_is_at_least_as_strong_and_its_flaws_weaken_it(case):
    net, images, target, _ = case

    def loss(found):
        return squared_l2(net(found.images), target.original.embedding)

    best = loss(_attacked(case, attack="apgd"))
    assert (best >= 0.9 * loss(_attacked(case))).all()
    # At the clean image fare's gradient vanishes while the tower is still the original: nothing moves.
    stuck = _attacked(case, attack="apgd", flaws=("apgd-clean-start",))
    assert torch.equal(stuck.images, images)
    assert loss(_attacked(case, attack="apgd", flaws=("apgd-misclassified",))).mean() < best.mean()


def test_misclassified_by_dimension_returns_the_clean_image_where_the_dimension_is_the_label(case):
    _, images, target, noise = case
    constant = nn.Sequential(nn.Flatten(), nn.Linear(48, 5)).requires_grad_(False)
    nn.init.normal_(constant[1].weight, std=1e-3, generator=torch.Generator().manual_seed(0))
    nn.init.constant_(constant[1].bias, 0)
    constant[1].bias.data[2] = 50.0  # the largest dimension is always 2
    recipe = Recipe("fare", 8, Schedule(4, 6, 1e-3), attack="apgd", flaws=("apgd-misclassified",))
    found = attack(lambda x: Features(constant(x)), fare.loss, images, target, noise, recipe, 0).images
    same = (found == images).flatten(1).all(1)
    assert same.tolist() == [label == 2 for label in target.labels.tolist()]


def test_misclassified_by_dimension_needs_labels(case):
    net, images, target, noise = case
    unlabelled = (net, images, target._replace(labels=None), noise)
    with pytest.raises(UsageError, match="compares with class ids"):
        _attacked(unlabelled, attack="apgd", flaws=("apgd-misclassified",))


def test_a_loss_that_is_not_finite_is_reported_and_never_zeroed(case):
    _, images, target, noise = case

    def broken(x):
        values = x.flatten(1)[:, :5]
        poison = torch.tensor([1.0, 1.0, math.nan, 1.0, 1.0, 1.0])[:, None]
        return Features(values * poison)

    recipe = Recipe("fare", 8, Schedule(4, 6, 1e-3))
    for flaws in ((), ("last-iterate",)):
        recipe = Recipe("fare", 8, Schedule(4, 6, 1e-3), flaws=flaws)
        found = attack(broken, fare.loss, images, target, noise, recipe, 0)
        assert found.finite.tolist() == [True, True, False, True, True, True]


def _mean(features, target):
    return features.embedding.mean()


def _broken(features, target):
    raise ZeroDivisionError("division by zero")


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (_mean, r"the training objective 'fare' gives \(\), not \(6,\): a loss for each image"),
        (lambda features, target: None, r"'fare' gives NoneType, not \(6,\)"),
        (_broken, "'fare' fails: ZeroDivisionError: division by zero"),
        (lambda features, target: given(target.labels), "does not name in its needs"),
    ],
)
def test_an_objective_that_fails_is_named(case, loss, message):
    wrong = objective(about="of another package")(loss)
    recipe = Recipe("fare", 8, Schedule(4, 6, 1e-3))
    with pytest.raises(UsageError, match=message):
        Stepper(_Net(), _Net(), wrong, recipe, lambda step: Batch(case[1]))(0)


def test_a_need_that_there_is_not_is_refused():
    with pytest.raises(UsageError, match="did you mean 'labels'"):
        objective("label", about="")
