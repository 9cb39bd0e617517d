"""The recipe `paper` against literal loops of what the published code does, in float64.

In float32, rounding turns the signs of gradients that are nearly zero, and AdamW's first update is a sign as well.
"""

import json
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bench.errors import UsageError
from bench.train.adversarial import finetune
from bench.train.attack import attack
from bench.train.batch import Batch
from bench.train.objectives import Features, Target, fare, objective
from bench.train.recipe import Recipe, paper_flaws
from bench.train.schedule import Schedule
from bench.train.step import Stepper

EPS, WIDTH, CLASSES = 32 / 255, 8, 5


class _Net(nn.Module):
    """Smooth and rough at once; with batch normalisation, if asked for."""

    def __init__(self, normalised: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        norm = nn.BatchNorm1d(16) if normalised else nn.Identity()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), norm, nn.Tanh(), nn.Linear(16, WIDTH))
        self.net[1].weight.data *= 30
        self.double()

    def forward(self, images):
        return self.net(images.double())


IMAGES = torch.rand(40, 3, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(40) % CLASSES
TEXTS = F.normalize(torch.randn(WIDTH, CLASSES, generator=torch.Generator().manual_seed(1)).double(), dim=0) * 100


@objective("labels", about="TeCoA without a cast to float32")
def tecoa_64(features, target):
    logits = F.normalize(features.embedding, dim=-1) @ target.classes
    return F.cross_entropy(logits, target.labels, reduction="none")


def _cross_entropy(embedding):
    return F.cross_entropy(F.normalize(embedding, dim=-1) @ TEXTS, LABELS, reduction="none")


def _project(images):
    low, high = (IMAGES - EPS).clamp(0, 1).double(), (IMAGES + EPS).clamp(0, 1).double()
    return torch.minimum(torch.maximum(images, low), high)


def _published_apgd(net, steps, first):
    """PROTOCOL, 2.4 and 10.5: clean start, first step 2 eps, the last image "misclassified" by embedding dimension.

    Args:
        net: images -> embeddings.
        steps: gradient steps.
        first: what the loss after the first step is compared with; 0 in the published code.
    """

    def look(images):
        leaf = images.detach().requires_grad_()
        embedding = F.normalize(net(leaf), dim=-1)
        losses = _cross_entropy(embedding)
        return losses.detach(), torch.autograd.grad(losses.sum(), leaf)[0], embedding.argmax(-1) != LABELS

    current = previous = kept = best = IMAGES.double()
    losses, gradient, _ = look(current)
    best_losses, best_gradient, reviewed = losses, gradient, losses
    history = [losses if first is None else torch.full_like(losses, first)]
    size = torch.full((len(IMAGES), 1, 1, 1), 2 * EPS, dtype=torch.float64)
    window, since, halved = max(int(0.22 * steps), 1), 0, torch.ones(len(IMAGES), dtype=torch.bool)
    for i in range(steps):
        a = 1.0 if i == 0 else 0.75
        ahead = _project(current + size * gradient.sign())
        current, previous = _project(current + a * (ahead - current) + (1 - a) * (current - previous)), current
        losses, gradient, wrong = look(current)
        kept = torch.where(wrong[:, None, None, None], current, kept)
        better = losses > best_losses
        best, best_gradient = (
            torch.where(better[:, None, None, None], *pair) for pair in ((current, best), (gradient, best_gradient))
        )
        best_losses = torch.where(better, losses, best_losses)
        history.append(losses)
        since += 1
        if since == window:
            rises = sum((history[-1 - c] > history[-2 - c]).int() for c in range(window))
            halve = (rises <= 0.75 * window) | (~halved & (best_losses <= reviewed))
            halved, reviewed, since = halve, best_losses, 0
            window = max(window - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))
            rows = halve[:, None, None, None]
            size = torch.where(rows, size / 2, size)
            current, gradient = torch.where(rows, best, current), torch.where(rows, best_gradient, gradient)
    return kept


def _found(steps, flaws):
    net = _Net().requires_grad_(False)
    recipe = Recipe("tecoa", 32, Schedule(4, 6, 1e-3), attack="apgd", inner_steps=steps, flaws=flaws)
    target = Target(labels=LABELS, classes=TEXTS)
    noise = torch.full_like(IMAGES, 0.5)
    return attack(lambda x: Features(net(x)), tecoa_64.loss, IMAGES, target, noise, recipe, 0).images


def test_apgd_of_the_paper_recipe_for_tecoa():
    """The first checkpoint counts a rise from 0, which no positive loss can fail to make."""
    net = _Net().requires_grad_(False)
    published, corrected = _published_apgd(net, 10, 0.0), _published_apgd(net, 10, None)
    apart = (published - corrected).abs().amax((1, 2, 3)) > 1e-3
    assert apart.any(), "the flaw must matter, or the case proves nothing"
    without = tuple(flaw for flaw in paper_flaws("apgd") if flaw != "apgd-first-checkpoint")
    assert torch.allclose(_found(10, paper_flaws("apgd")).double(), published, atol=1e-6)
    assert torch.allclose(_found(10, without).double(), corrected, atol=1e-6)


def _published_updates(net, updates, warmup, rate):
    """Whole updates: AdamW on all weights, the rate set after each; returns the losses."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=1e-4)
    losses = []
    for done in range(1, updates + 1):
        net.eval()
        attacked = _published_apgd(net, 10, 0.0)
        net.train()
        net(IMAGES)  # the clean embedding, needed or not
        optimizer.zero_grad()
        loss = _cross_entropy(net(attacked)).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        cosine = 0.5 * (1 + math.cos(math.pi * (done - warmup) / (updates - warmup)))
        optimizer.param_groups[0]["lr"] = rate * (done + 1) / warmup if done < warmup else rate * cosine
    return losses


@pytest.mark.parametrize("normalised", [False, True])
def test_training_of_the_paper_recipe_with_apgd(normalised, tmp_path):
    """TeCoA, six updates; with batch normalisation the running statistics move twice in each."""
    recipe = Recipe("tecoa", 32, Schedule(6, 40, 1e-3, 2), attack="apgd", flaws=paper_flaws("apgd"))
    ours, original, plain = (_Net(normalised) for _ in range(3))
    batch = Batch(IMAGES, LABELS)
    finetune("t", ours, original, recipe, lambda step: batch, tmp_path, objective=tecoa_64, classes=TEXTS)
    losses = _published_updates(plain, 6, 2, 1e-3)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [rows[0]["loss"], rows[-1]["loss"]] == pytest.approx([losses[0], losses[-1]], rel=1e-5)
    plain.eval()
    moved = (plain(IMAGES) - original.eval()(IMAGES)).norm()
    assert (plain(IMAGES) - ours(IMAGES)).norm() < 1e-3 * moved


@pytest.mark.parametrize("clean_weight", [0.0, 0.3])
def test_running_statistics_move_twice_an_update_in_the_published_code(clean_weight):
    """Once towards the clean batch, then towards the attacked one; a flaw of its own."""
    flaws = ("batch-norm-on-attacked", "last-iterate")
    counts = {}
    for extra in ((), ("batch-norm-twice",)):
        recipe = Recipe("fare", 8, Schedule(4, 6, 1e-3), clean_weight=clean_weight, flaws=flaws + extra)
        net, original = _Net(True), _Net(True)
        Stepper(net, original, fare, recipe, lambda step: Batch(IMAGES))(3)
        counts[extra] = int(net.net[2].num_batches_tracked)
    assert counts == {(): 1, ("batch-norm-twice",): 2}


def test_twice_without_training_the_statistics_at_all_is_refused():
    with pytest.raises(UsageError, match="give that, too"):
        Recipe("fare", 8, Schedule(4, 6, 1e-3), flaws=("batch-norm-twice",))
