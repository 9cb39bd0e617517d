"""Time one training step against a plain loop that follows the published recipe to the letter.

Both sides run in this process on the same device, in turn, on the same images and from the same weights. The plain loop
is open_clip's tower as it comes: the clean embedding with gradient tracking in every step, weights that ask for
gradients during the attack, and every tenth step logged.
Usage:

    python benchmarks/training.py                                   the miniature tower on the CPU
    python benchmarks/training.py --arch ViT-B-32 --batch 4 --rounds 1
    python benchmarks/training.py --arch ViT-L-14 --device cuda --batch 128 --bf16 --compile
"""

import argparse
import copy
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder would hide the package "attacks"

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.models.encoders import catalogue
from bench.models.encoders.attention import unfold_attention
from bench.train.base import load_base
from bench.train.batch import Batch
from bench.train.distributed import World
from bench.train.loop import optimizer_of, step_generator
from bench.train.objectives import fare
from bench.train.recipe import Recipe, paper_flaws
from bench.train.schedule import Schedule
from bench.train.step import Runtime, Stepper
from bench.train.towers import trained_part
from benchmarks import history

PAPER_STEPS, PAPER_BATCH, LOGGED = 20_000, 128, 10
EPS, SIZE, STEPS = 4 / 255, 1 / 255, 10


class PlainTower(nn.Module):
    """Normalisation and open_clip's tower, convolution and all."""

    mean: Tensor
    std: Tensor

    def __init__(self, visual: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.visual = visual
        self.register_buffer("mean", mean.clone(), persistent=False)
        self.register_buffer("std", std.clone(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(b, 3, H, W) in [0, 1] -> (b, D)."""
        return cast(Tensor, self.visual((images - self.mean) / self.std))


Autocast = Callable[[], AbstractContextManager[Any]]
Gradients = Callable[[int], float]


def plain_step(
    tower: nn.Module, original: nn.Module, images: Tensor, noise: Tensor, autocast: Autocast, *, logged: bool
) -> float:
    """PROTOCOL, section 10: gradients of one step in the parameters; returns the loss."""
    with torch.no_grad(), autocast():
        anchor = original(images).float()
    tower.eval()
    delta, velocity = EPS * (2 * noise - 1), torch.zeros_like(images)
    for _ in range(STEPS):
        delta = delta.detach().requires_grad_()
        with autocast():
            loss = (tower(images + delta).float() - anchor).square().sum(1).mean()
        (gradient,) = torch.autograd.grad(loss, delta)
        gradient = torch.nan_to_num(gradient)
        velocity = (0.9 * velocity + gradient.sign()).sign()
        delta = (delta + SIZE * velocity).detach().clamp(-EPS, EPS)
        delta = (images + delta).clamp(0, 1) - images
    tower.train()
    with autocast():
        clean = tower(images).float()  # with gradient tracking, whether needed or not
        attacked = tower(images + delta.detach()).float()
    loss = (attacked - anchor).square().sum(1).mean()
    torch.autograd.backward(loss)
    if logged:
        F.cosine_similarity(clean, anchor).mean().item(), F.cosine_similarity(attacked, anchor).mean().item()
    return float(loss.item())


class Side:
    """One way to train, with an optimizer of its own."""

    def __init__(self, gradients: Gradients, optimizer: torch.optim.Optimizer) -> None:
        self.gradients, self.optimizer = gradients, optimizer

    def step(self, number: int) -> float:
        """One update; returns its loss."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.gradients(number)
        self.optimizer.step()
        return loss


def sides(arguments: argparse.Namespace, schedule: Schedule, batches: Callable[[int], Batch]) -> dict[str, Side]:
    """The plain loop and ours, from equal weights; ours with the flaws of the paper, so that both do the same."""
    device = torch.device(arguments.device)
    ours, original = (load_base(arguments.arch, arguments.weights).encoder for _ in range(2))
    bare = load_base(arguments.arch, arguments.weights).encoder
    visual = copy.deepcopy(bare.visual)
    if hasattr(visual, "conv1") and not isinstance(visual.conv1, nn.Conv2d):
        visual.conv1 = as_convolution(visual.conv1)
    unfold_attention(visual)
    plain, plain_original = (PlainTower(copy.deepcopy(visual), bare.mean, bare.std).to(device) for _ in range(2))
    plain_original.eval().requires_grad_(False)
    plain.visual.requires_grad_(True)
    for encoder in (ours, original):
        encoder.to(device)
    autocast: Autocast = nullcontext
    if arguments.bf16:
        autocast = partial(torch.autocast, device.type, dtype=torch.bfloat16)

    def plain_gradients(step: int) -> float:
        images = batches(step).images.to(device)
        noise = torch.rand(images.shape, generator=step_generator(0, step, device), device=device)
        return plain_step(plain, plain_original, images, noise, autocast, logged=step % LOGGED == 0)

    recipe = Recipe("fare", 4, schedule, flaws=paper_flaws("pgd"))
    runtime = Runtime(World(device=device), arguments.micro_batch, arguments.bf16, arguments.compile)
    ours.visual.requires_grad_(True)
    stepper = Stepper(ours, original, fare, recipe, batches, runtime=runtime)
    plain_optimizer = torch.optim.AdamW(plain.visual.parameters(), lr=schedule.learning_rate, weight_decay=1e-4)
    return {
        "plain": Side(plain_gradients, plain_optimizer),
        "bench": Side(lambda step: stepper(step).loss, optimizer_of({"tower": trained_part(ours)}, schedule)),
    }


def as_convolution(projection: nn.Module) -> nn.Conv2d:
    """open_clip's own patch embedding, with the same weights."""
    weight = cast(Tensor, projection.weight)
    out, channels, height, width = weight.shape
    convolution = nn.Conv2d(channels, out, (height, width), stride=(height, width), bias=False)
    convolution.weight = nn.Parameter(weight.detach().clone())
    return convolution


def clock(device: str) -> float:
    """Seconds, once the device has done what it was asked to."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_memory(device: str) -> float:
    """Gigabytes: of the device's allocator, or of this process."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    """Seconds a step of both sides, in turn, and how far their weights are apart in the end."""
    size = load_base(arguments.arch, arguments.weights).encoder.preprocessing.size
    schedule = Schedule(10**6, arguments.batch, 1e-5)

    def batches(step: int) -> Batch:
        shape = (arguments.batch, 3, size, size)
        return Batch(torch.rand(shape, generator=torch.Generator().manual_seed(step)))

    both = sides(arguments, schedule, batches)
    chosen = {name: side for name, side in both.items() if arguments.only in (None, name)}
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    processor: dict[str, list[float]] = {name: [] for name in chosen}
    memory: dict[str, float] = {}
    losses: dict[str, list[float]] = {name: [] for name in chosen}
    for step in range(1, arguments.warm + arguments.rounds + 1):
        for name, side in chosen.items():
            if arguments.device.startswith("cuda"):
                torch.cuda.reset_peak_memory_stats()
            before, worked = clock(arguments.device), time.process_time()
            losses[name].append(side.step(step))
            if step > arguments.warm:
                seconds[name].append(clock(arguments.device) - before)
                processor[name].append(time.process_time() - worked)
            memory[name] = peak_memory(arguments.device)
    result: dict[str, object] = {"arch": arguments.arch, "batch": arguments.batch, "device": arguments.device}
    for name, times in seconds.items():
        typical = statistics.median(times)
        hours = PAPER_STEPS * PAPER_BATCH / arguments.batch * typical / 3600
        result[name] = {
            "seconds_per_step": round(typical, 4),
            "processor_seconds_per_step": round(statistics.median(processor[name]), 4),
            "images_per_second": round(arguments.batch / typical, 2),
            "peak_memory_gb": round(memory[name], 2),
            "hours_for_20000_steps_of_128": round(hours, 1),
            "cost": None if arguments.price is None else round(hours * arguments.price, 2),
        }
    if len(chosen) == 2:
        result["speedup"] = round(statistics.median(p / b for p, b in zip(*seconds.values(), strict=True)), 3)
        ratios = (p / b for p, b in zip(*processor.values(), strict=True))
        result["speedup_in_processor_time"] = round(statistics.median(ratios), 3)
        apart = [abs(p - b) / abs(p) for p, b in zip(*losses.values(), strict=True)]
        result["relative_difference_of_losses"] = {"first_step": apart[0], "largest": max(apart)}
    return result


def main() -> None:
    """Print the measurement as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default=None, help="default: the miniature CLIP with its weights")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--micro-batch", type=int, default=None, help="of our side")
    parser.add_argument("--rounds", type=int, default=10, help="timed steps a side")
    parser.add_argument("--warm", type=int, default=2, help="steps before the clock starts")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--bf16", action="store_true", help="on both sides")
    parser.add_argument("--compile", action="store_true", help="on our side")
    parser.add_argument("--only", choices=["plain", "bench"], help="one side alone, for its peak memory on a CPU")
    parser.add_argument("--price", type=float, default=None, help="of an hour on the device, for the cost")
    history.add_option(parser)
    arguments = parser.parse_args()
    named = arguments.arch or "miniature"
    arguments.weights = None if arguments.arch is None else "random"
    arguments.arch = arguments.arch or catalogue.resolve_path(str(catalogue.rows("mini")["clip"].model))
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    found = measure(arguments)
    print(json.dumps(found, indent=2))
    if arguments.note and arguments.only is None:
        ways = [word for word in ("bf16", "compile") if getattr(arguments, word)]
        case = ", ".join([named, f"batch {arguments.batch}", arguments.device, *ways])
        clocks = {"seconds": "speedup", "processor seconds": "speedup_in_processor_time"}
        history.note({f"training: plain loop / trainer, {case}, {c}": cast(float, found[k]) for c, k in clocks.items()})


if __name__ == "__main__":
    main()
