"""The trainer's steps have the losses of the plain loop that it is measured against, in float64."""

import copy
from contextlib import nullcontext

import open_clip
import pytest
import torch
from torch import nn

from bench.models.encoders.attention import unfold_attention
from bench.models.encoders.encoder import Encoder, Preprocessing, TextTower
from bench.train.batch import Batch
from bench.train.loop import optimizer_of, step_generator
from bench.train.objectives import fare
from bench.train.recipe import Recipe, paper_flaws
from bench.train.schedule import Schedule
from bench.train.step import Stepper
from benchmarks.training import PlainTower, as_convolution, plain_step

VISION = {"image_size": 16, "patch_size": 8, "width": 32, "layers": 3, "head_width": 16}
TEXT = {"context_length": 8, "vocab_size": 20, "width": 16, "heads": 1, "layers": 1}
SCHEDULE = Schedule(40, 8, 1e-3)


def _encoder() -> Encoder:
    torch.manual_seed(0)
    clip = open_clip.model.CLIP(12, VISION, TEXT)
    visual, clip.visual = clip.visual, nn.Identity()
    return Encoder(visual, Preprocessing(16, (0.5,) * 3, (0.3,) * 3), TextTower(clip, None)).double()


def _plain(encoder: Encoder) -> PlainTower:
    """The same tower as open_clip has it."""
    visual = copy.deepcopy(encoder.visual)
    visual.conv1 = as_convolution(visual.conv1)
    unfold_attention(visual)
    return PlainTower(visual.requires_grad_(True), encoder.mean, encoder.std)


def _images(step: int) -> torch.Tensor:
    return torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(step))


def test_losses_and_gradients_of_updates_are_those_of_the_plain_loop():
    tower, original = _encoder(), _encoder()
    plain, plain_original = _plain(tower), _plain(original).eval()
    tower.visual.requires_grad_(True)
    recipe = Recipe("fare", 4, SCHEDULE, flaws=paper_flaws("pgd"))
    stepper = Stepper(tower, original, fare, recipe, lambda step: Batch(_images(step)))
    ours = optimizer_of({"tower": tower.visual}, SCHEDULE)
    theirs = torch.optim.AdamW(plain.visual.parameters(), lr=SCHEDULE.learning_rate, weight_decay=SCHEDULE.weight_decay)
    for step in range(4):
        images = _images(step)
        noise = torch.rand(images.shape, generator=step_generator(0, step))
        theirs.zero_grad()
        ours.zero_grad()
        expected = plain_step(plain, plain_original, images, noise, nullcontext, logged=False)
        assert stepper(step).loss == pytest.approx(expected, rel=1e-5)  # images are float32
        pairs = [(p.grad, q.grad) for p, q in zip(plain.visual.parameters(), tower.visual.parameters(), strict=True)]
        largest = max(one.abs().max().item() for one, _ in pairs)
        assert all(torch.allclose(other.view_as(one), one, rtol=1e-4, atol=1e-5 * largest) for one, other in pairs)
        theirs.step()
        ours.step()
