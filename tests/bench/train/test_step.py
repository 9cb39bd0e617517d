"""One training step: what is computed, micro-batches, precision, architectures, several processes."""

import functools
from dataclasses import replace

import open_clip
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bench.errors import UsageError
from bench.models.encoders.encoder import Encoder, Preprocessing, TextTower
from bench.train import trainer
from bench.train.adversarial import finetune
from bench.train.batch import Batch
from bench.train.distributed import World, join, leave
from bench.train.job import TrainingJob
from bench.train.memory import largest_that_fits
from bench.train.objectives import cosine, fare, fare_patches, tecoa
from bench.train.recipe import Recipe
from bench.train.schedule import Schedule
from bench.train.step import Runtime, Stepper
from bench.train.towers import checkpoint_activations, frozen, train_mode
from tests.commands import together

RECIPE = Recipe("fare", 8, Schedule(40, 8, 1e-3), inner_steps=3, inner_step_255=4.0)
VISION = {"image_size": 16, "patch_size": 8, "width": 32, "layers": 3, "head_width": 16}
TEXT = {"context_length": 8, "vocab_size": 20, "width": 16, "heads": 1, "layers": 1}


def _encoder(seed=0, **vision):
    torch.manual_seed(seed)
    clip = open_clip.model.CLIP(12, {**VISION, **vision}, TEXT)
    visual, clip.visual = clip.visual, nn.Identity()
    return Encoder(visual, Preprocessing(16, (0.5, 0.5, 0.5), (0.3, 0.3, 0.3)), TextTower(clip, None))


def _pair(**vision):
    tower, original = _encoder(**vision), _encoder(**vision)
    tower.visual.requires_grad_(True)
    return tower, original


def _batch(step=0, count=8, size=16):
    generator = torch.Generator().manual_seed(step)
    return Batch(torch.rand(count, 3, size, size, generator=generator), torch.arange(count) % 3)


def _gradients(tower):
    return torch.cat([p.grad.flatten() for p in tower.visual.parameters()])


class _Counting(nn.Module):
    """Counts forward passes, and those that keep what weight gradients need."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3 * 16 * 16, 6)
        self.forwards = self.for_weights = 0

    def forward(self, images):
        self.forwards += 1
        self.for_weights += torch.is_grad_enabled() and self.linear.weight.requires_grad
        return torch.tanh(self.linear(images.flatten(1)))


@pytest.mark.parametrize(("flaws", "passes"), [((), 3 + 1 + 1), (("last-iterate",), 3 + 1)])
def test_no_pass_that_the_update_does_not_need(flaws, passes):
    tower, original = _Counting(), _Counting()
    stepper = Stepper(tower, original, fare, replace(RECIPE, flaws=flaws), _batch)
    stepper(5)  # not a logged step
    assert (original.forwards, tower.forwards, tower.for_weights) == (1, passes, 1)
    stepper(10)  # a logged one: the clean cosine costs one pass
    assert (original.forwards, tower.forwards, tower.for_weights) == (2, 2 * passes + 1, 2)


def test_tecoa_does_not_ask_the_original():
    tower, original = _Counting(), _Counting()
    classes = torch.eye(6)[:, :3] * 10
    Stepper(tower, original, tecoa, RECIPE, _batch, classes=classes)(5)
    assert original.forwards == 0


@pytest.mark.parametrize("objective", [fare, cosine, fare_patches, tecoa], ids=["fare", "cosine", "patches", "tecoa"])
@pytest.mark.parametrize("clean_weight", [0.0, 0.3])
def test_micro_batches_add_up_to_the_whole_batch(objective, clean_weight):
    """In float64: in float32 rounding depends on the batch, and may turn the sign of a pixel's vanishing gradient."""
    found = []
    for size in (None, 3):
        tower, original = (encoder.double() for encoder in _pair())
        recipe = replace(RECIPE, clean_weight=clean_weight)
        classes = F.normalize(torch.randn(12, 3, generator=torch.Generator().manual_seed(1)), dim=0) * 10
        stepper = Stepper(
            tower, original, objective, recipe, _batch, classes=classes.double(), runtime=Runtime(micro_batch=size)
        )
        update = stepper(0)
        found.append((update.loss, _gradients(tower)))
    (loss, whole), (other, parts) = found
    assert loss == pytest.approx(other, rel=1e-6)
    assert (whole - parts).norm() < 1e-5 * whole.norm()


def test_the_clean_loss_is_mixed_in_by_its_weight():
    """At w = 0.25: a quarter of the clean and three quarters of the attacked loss."""
    tower, original = _encoder(), _encoder(seed=1)
    tower.visual.requires_grad_(True)
    batch = _batch()
    with torch.no_grad():
        clean = (tower(batch.images) - original(batch.images)).square().sum(1).mean().item()
    attacked = Stepper(tower, original, fare, RECIPE, _batch)(0).loss
    mixed = Stepper(tower, original, fare, replace(RECIPE, clean_weight=0.25), _batch)(0).loss
    assert mixed == pytest.approx(0.75 * attacked + 0.25 * clean, rel=1e-4)


def test_bfloat16_keeps_weights_and_perturbations_in_float32():
    seen = []

    class Tower(_Counting):
        def forward(self, images):
            seen.append((images.dtype, self.linear(images.flatten(1)).dtype, self.linear.weight.dtype))
            return super().forward(images)

    tower = Tower()
    Stepper(tower, _Counting(), fare, RECIPE, _batch, runtime=Runtime(bfloat16=True))(0)
    assert set(seen) == {(torch.float32, torch.bfloat16, torch.float32)}
    assert tower.linear.weight.grad.dtype == torch.float32


def test_checkpointed_activations_change_nothing():
    gradients = []
    for checkpointed in (False, True):
        tower, original = _pair()
        if checkpointed:
            checkpoint_activations(tower)
        Stepper(tower, original, fare, RECIPE, _batch)(0)
        gradients.append(_gradients(tower))
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-5 * gradients[0].abs().max())
    with pytest.raises(UsageError, match="no activation checkpointing"):
        checkpoint_activations(_Counting())


def test_compiled_towers_give_the_same_and_are_traced_once(monkeypatch):
    """Traced by dynamo and run eagerly: three graphs (original, attack, update), no recompilation from step to step."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    gradients = []
    for compiled in (False, True):
        tower, original = _pair(layers=1)
        stepper = Stepper(tower, original, fare, RECIPE, _batch, runtime=Runtime(compiled=compiled))
        for step in (1, 2):
            tower.visual.zero_grad()
            stepper(step)
        gradients.append(_gradients(tower))
    assert (gradients[0] - gradients[1]).norm() < 1e-4 * gradients[0].norm()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 3
    assert not torch._dynamo.utils.counters["graph_break"]


def test_patches_are_those_that_llava_reads():
    tower, _ = _pair()
    images = _batch().images
    from bench.train.towers import PatchTower

    features = PatchTower(tower)(images)
    assert torch.allclose(features.embedding, tower(images), atol=1e-5)
    assert torch.allclose(features.patches, tower.patch_tokens(images), atol=1e-5)
    with pytest.raises(UsageError, match="patch tokens need"):
        Stepper(_Counting(), _Counting(), fare_patches, RECIPE, _batch)


class _WithStatistics(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.norm = nn.Conv2d(3, 4, 4, 4), nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(0.5)

    def forward(self, images):
        return self.dropout(self.norm(self.convolution(images))).flatten(1)


@pytest.mark.parametrize(("flaws", "moves"), [((), False), (("batch-norm-on-attacked",), True)])
def test_batch_statistics_stay_the_originals_unless_the_flaw_is_asked_for(flaws, moves):
    tower, original = _WithStatistics(), _WithStatistics()
    before = tower.norm.running_mean.clone()
    Stepper(tower, original, fare, replace(RECIPE, flaws=flaws), _batch)(0)
    assert torch.equal(tower.norm.running_mean, before) != moves
    assert torch.equal(original.norm.running_mean, before)
    assert tower.dropout.training


def test_statistics_of_a_shared_batch_need_cuda():
    runtime = Runtime(World(0, 2))
    recipe = replace(RECIPE, flaws=("batch-norm-on-attacked",))
    with pytest.raises(UsageError, match="needs CUDA"):
        Stepper(_WithStatistics(), _WithStatistics(), fare, recipe, _batch, runtime=runtime)


def test_frozen_restores_every_mode_and_flag():
    module = _WithStatistics()
    train_mode(module, batch_statistics=False)
    module.norm.weight.requires_grad_(False)
    with frozen(module):
        assert not any(m.training for m in module.modules())
        assert not any(p.requires_grad for p in module.parameters())
    assert module.dropout.training
    assert not module.norm.training
    assert not module.norm.weight.requires_grad
    assert module.convolution.weight.requires_grad


@pytest.mark.parametrize("trunk", ["convnext_atto", "vit_tiny_patch16_224", "resnet"])
def test_convnext_siglip_and_resnet_towers_train(trunk, tmp_path):
    """Towers of timm (ConvNeXt with stochastic depth, a SigLIP-like ViT) and open_clip's own ResNet."""
    torch.manual_seed(0)
    size = 224 if trunk.endswith("224") else 32
    vision = {"image_size": size, "timm_model_pretrained": False, "timm_drop_path": 0.1} | {
        "convnext_atto": {"timm_model_name": trunk, "timm_pool": "avg", "timm_proj": "linear"},
        "vit_tiny_patch16_224": {"timm_model_name": trunk, "timm_pool": "map", "timm_proj": "none"},
        "resnet": {"layers": (1, 1, 1, 1), "width": 16},
    }[trunk]
    build = lambda: open_clip.model._build_vision_tower(192, vision)  # noqa: E731
    tower, original = build(), build()
    original.load_state_dict(tower.state_dict())
    before = {k: v.clone() for k, v in tower.state_dict().items()}
    recipe = Recipe("fare", 8, Schedule(2, 4, 1e-3), inner_steps=2, inner_step_255=4.0)
    finetune("t", tower, original, recipe, lambda step: _batch(step, 4, size), tmp_path)
    moved = [k for k, v in tower.state_dict().items() if not torch.equal(v, before[k])]
    assert moved
    assert not [k for k in moved if "running" in k or "num_batches" in k]
    assert all(v.isfinite().all() for v in tower.state_dict().values() if v.is_floating_point())


def test_out_of_memory_names_the_micro_batch_that_fits():
    """An injected allocator: more than 3 images at once do not fit."""

    class Small(_Counting):
        def forward(self, images):
            if len(images) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(images)

    with pytest.raises(UsageError, match=r"8 images at once; 2 fit: add --micro-batch 2"):
        Stepper(Small(), Small(), fare, RECIPE, _batch)(0)
    Stepper(Small(), Small(), fare, RECIPE, _batch, runtime=Runtime(micro_batch=2))(0)


def test_trying_what_fits_asks_no_other_process_and_leaves_room_for_the_optimizer(monkeypatch):
    """One process alone runs out of memory: the others would wait for ever. AdamW's moments come after gradients."""

    class Together(nn.Module):
        def forward(self, images):
            raise AssertionError("the other processes are not here")

    stepper = Stepper(_Counting(), _Counting(), fare, RECIPE, _batch)
    stepper._last, stepper._parallel = _batch(), Together()
    held = []
    monkeypatch.setattr(torch, "empty_like", lambda p: held.append(p.shape) or p)
    stepper.probe(2)
    assert sorted(held) == sorted([(6, 768), (6,)] * 2)
    stepper._parallel = stepper._tower
    stepper(0)
    held.clear()
    stepper.probe(2)
    assert held == []


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory. Tried"), MemoryError("no room")])
def test_out_of_memory_outside_the_passes_is_one_line(tmp_path, monkeypatch, error):
    def fails(job, world):
        raise error

    monkeypatch.setattr(trainer, "_prepare", fails)
    with pytest.raises(UsageError, match="out of memory on cpu beside the passes of a step"):
        trainer.run(TrainingJob(objective="fare", arch="a", data="folder:x", output=tmp_path, device="cpu"))


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    def fails(size):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        largest_that_fits(fails, 8)


def test_images_with_a_loss_that_is_not_finite_are_named():
    class Poisoned(_Counting):
        def forward(self, images):
            found = super().forward(images)
            return torch.where(images[:, :1, 0, 0] > 0.99, torch.nan, found)

    def batches(step):
        batch = _batch(step)
        batch.images[5, 0, 0, 0] = 1.0
        return batch._replace(ids=[f"photo{i}.jpg" for i in range(8)])

    recipe = replace(RECIPE, eps_255=0.5)
    with pytest.raises(UsageError, match=r"not finite at step 7, on 1 images: photo5\.jpg"):
        Stepper(Poisoned(), _Counting(), fare, recipe, batches)(7)


WORLD_RECIPE = Recipe("fare", 8, Schedule(5, 8, 1e-3, warmup=2), inner_steps=3, inner_step_255=4.0, clean_weight=0.2)


def train_together(out):
    """One of the processes that train the same tower, each on its share of a batch."""
    torch.set_num_threads(1)
    world = join("cpu")
    tower, original = _pair()

    def share(step):
        batch = _batch(step)
        rows = world.share(len(batch.images))
        return batch._replace(images=batch.images[rows], labels=batch.labels[rows])

    finetune("t", tower, original, WORLD_RECIPE, share, out, runtime=Runtime(world, micro_batch=2))
    torch.save([tower.visual.state_dict(), world.size], out / f"rank{world.rank}.pt")
    leave()


def test_two_processes_with_micro_batches_equal_one(tmp_path):
    """Real processes over gloo; the same global batch gives the same tower up to rounding."""
    for process in together(train_together, tmp_path):
        assert process.wait() == 0, process.stderr
    (first, size), (second, _) = (torch.load(tmp_path / f"rank{r}.pt", weights_only=True) for r in (0, 1))
    assert size == 2
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2  # only one process writes

    alone, original = _pair()
    finetune("t", alone, original, WORLD_RECIPE, _batch, tmp_path / "one")
    joint, _ = _pair()
    joint.visual.load_state_dict(first)
    images = _batch(99).images
    with torch.no_grad():
        one, two, start = alone(images), joint(images), original(images)
    # Adam divides by the gradient's size, so weights whose gradient is only rounding (the bias of keys) differ.
    assert (one - two).norm() < 1e-3 * (one - start).norm()
    a, b, c = (torch.cat([t.flatten() for t in m.visual.state_dict().values()]) for m in (alone, joint, original))
    assert (a - b).norm() < 0.05 * (a - c).norm()
