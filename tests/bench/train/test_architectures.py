"""One step of FARE and of TeCoA on a SigLIP, a ConvNeXt and a ResNet: the same by hand, in float64."""

import pytest
import torch
from torch.nn import functional as F

from bench.models.encoders.load import load_encoder
from bench.train.base import load_base
from bench.train.batch import Batch
from bench.train.classes import class_weights
from bench.train.export import export
from bench.train.objectives import fare, objective
from bench.train.recipe import PAPER_SCALE, PAPER_TEMPLATE, Recipe
from bench.train.schedule import Schedule
from bench.train.step import Stepper
from bench.train.towers import frozen
from tests.bench.models import checkpoints, siglip

EPS, STEP, COUNT = 8 / 255, 4 / 255, 2
NAMES = ["red star", "blue ring", "red circle"]
VISION = {
    "convnext": {"image_size": 32, "timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": "linear"},
    "resnet": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16, "head_width": 16, "patch_size": None},
}
IMAGES = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(6) % 3


@objective("labels", about="TeCoA without a cast to float32")
def tecoa_64(features, target):
    logits = F.normalize(features.embedding, dim=-1) @ target.classes
    return F.cross_entropy(logits, target.labels, reduction="none")


@pytest.fixture(scope="module", params=["siglip", *VISION])
def place(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases") / request.param
    if request.param == "siglip":
        siglip.folder(folder)
    else:
        config = checkpoints.open_clip_config() | {"vision_cfg": VISION[request.param]}
        checkpoints.open_clip_folder(folder, config, {"mean": [0.5] * 3, "std": [0.5] * 3, "size": 32})
    return folder


def _by_hand(tower, loss, noise):
    """PGD from a random start to the iterate of highest loss, then the gradient of the mean loss."""
    low, high = (IMAGES - EPS).clamp(min=0).double(), (IMAGES + EPS).clamp(max=1).double()
    current = torch.minimum(torch.maximum(IMAGES.double() + EPS * (2 * noise.double() - 1), low), high)
    with frozen(tower):
        best, highest = current, torch.full((len(IMAGES),), -torch.inf, dtype=torch.float64)
        for done in range(COUNT + 1):
            leaf = current.detach().requires_grad_()
            losses = loss(tower(leaf))
            better = (losses > highest).detach()
            best = torch.where(better[:, None, None, None], current, best)
            highest = torch.where(better, losses.detach(), highest)
            if done < COUNT:
                (gradient,) = torch.autograd.grad(losses.sum(), leaf)
                current = torch.minimum(torch.maximum(current + STEP * gradient.sign(), low), high)
    mean = loss(tower(best)).mean()
    return mean.item(), torch.autograd.grad(mean, list(tower.visual.parameters()), allow_unused=True)


@pytest.mark.parametrize("name", ["fare", "tecoa"])
def test_a_step_is_what_is_written_down(place, name, monkeypatch):
    base, anchor = load_base(str(place), None), load_base(str(place), None)
    classes = class_weights(base, NAMES).double()
    tower, original = base.encoder.double(), anchor.encoder.double()
    tower.visual.requires_grad_(True)
    with torch.no_grad():  # the trained tower has moved from the original: FARE's gradient does not vanish
        for k, parameter in enumerate(tower.visual.parameters()):
            parameter.mul_(1 + 0.01 * (-1) ** k)
        clean = original(IMAGES)
    recipe = Recipe(name, 8, Schedule(4, 6, 1e-3), inner_steps=COUNT, inner_step_255=4.0)
    stepper = Stepper(
        tower,
        original,
        {"fare": fare, "tecoa": tecoa_64}[name],
        recipe,
        lambda step: Batch(IMAGES, LABELS),
        classes=classes,
    )
    update = stepper(0)
    found = [p.grad for p in tower.visual.parameters()]
    losses = {
        "fare": lambda embedding: (embedding - clean).square().sum(1),
        "tecoa": lambda embedding: F.cross_entropy(F.normalize(embedding, dim=-1) @ classes, LABELS, reduction="none"),
    }
    loss, gradients = _by_hand(tower, losses[name], stepper._noise(0, IMAGES))
    assert update.loss == pytest.approx(loss, rel=1e-6)
    pairs = [(ours, theirs) for ours, theirs in zip(found, gradients, strict=True) if theirs is not None]
    assert len(pairs) > 10
    difference = sum((ours - theirs).square().sum() for ours, theirs in pairs) / sum(t.square().sum() for _, t in pairs)
    assert difference.sqrt() < 1e-4


def test_tecoa_takes_siglips_own_scale_and_the_papers_elsewhere(place):
    """The bias moves all classes alike; the softmax of TeCoA does not see it."""
    base = load_base(str(place), None)
    text = base.encoder.text
    own = getattr(text.clip, "logit_bias", None) is not None
    expected = text.classifier(NAMES, [PAPER_TEMPLATE]) * (text.scale if own else PAPER_SCALE)
    assert torch.allclose(class_weights(base, NAMES), expected.detach())


def test_what_is_exported_is_an_encoder_again(place, tmp_path):
    base = load_base(str(place), None)
    with torch.no_grad():
        for parameter in base.encoder.visual.parameters():
            parameter.mul_(1.01)
    export(base, tmp_path / "trained")
    found = load_encoder(str(tmp_path / "trained"))
    assert torch.equal(found(IMAGES), base.encoder(IMAGES))
    assert torch.equal(found.text.embed(NAMES), base.encoder.text.embed(NAMES))
    assert found.preprocessing == base.encoder.preprocessing
