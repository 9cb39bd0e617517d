"""Time an attack step on the miniature LLaVA against the same model as transformers computes it.

    OMP_NUM_THREADS=1 python benchmarks/llava_step.py [--encoder fare4] [--batch 256] [--rounds 8] [--note]

Both sides run in this process on one thread, in turn, on the same questions and images: one forward and one backward
pass to the pixels, in seconds of the processor. The plain side is transformers' own model, image tower included, as it
is called by who wants its logits; its weights are frozen, too.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder would hide the package "attacks"

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.objective import gradient_of_all
from bench.config import Request, resolve
from bench.models.encoders.convert import to_clip_vision_model
from bench.models.victims.llava.files import read_llava
from bench.models.victims.prompts import answer_ids, pad_left
from bench.running.load import Setup, prepare
from benchmarks import history
from benchmarks.yardsticks import pixels_of
from tasks.vqa import frequent_answers

IGNORED = -100  # of cross-entropy: a place that does not count


def load(encoder: str, batch: int) -> Setup:
    """Model, questions and images."""
    with tempfile.TemporaryDirectory() as folder:
        asked = {"task": "vqa", "dataset": "mini-vqa", "attack": "apgd", "eps": 4.0, "limit": batch, "device": "cpu"}
        (config,) = resolve(Request.of(encoder=encoder, suite="mini-full", output=Path(folder), **asked))
        return prepare(config)


class PlainLlava:
    """Losses of the most frequent answers, from the logits of whole sequences."""

    def __init__(self, llava: Any, setup: Setup) -> None:
        self.llava, talk = llava, llava.talk
        self.model: Any
        self.model, _ = read_llava(llava.model.name_or_path, torch.float32, tower=False)
        self.model.model.vision_tower = to_clip_vision_model(llava.encoder.visual)
        self.model.eval().requires_grad_(False)
        sequences, lengths = [], []
        for sample, prompt in zip(setup.samples, setup.victim.prompts(setup.samples), strict=True):  # type: ignore[attr-defined]
            said = answer_ids(talk, prompt, frequent_answers(sample.references)[0], llava.tokenizer.eos_token_id)
            sequences.append([*talk.before, *[llava.image_id] * llava.patches, *talk.after(prompt), *said])
            lengths.append(len(said))
        rows, seen = pad_left(sequences, llava.tokenizer.pad_token_id)
        self.ids, self.mask = torch.tensor(rows), torch.tensor(seen)
        places, counts = torch.arange(self.ids.shape[1]), torch.tensor(lengths)[:, None]
        self.wanted = torch.where(places >= len(places) - counts, self.ids, IGNORED)[:, 1:]

    def gradient(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Losses (B,) and their gradients (B, 3, H, W)."""
        leaf, tower = images.clone().requires_grad_(), self.llava.encoder
        pixels = (leaf - tower.mean) / tower.std
        logits = self.model(input_ids=self.ids, attention_mask=self.mask, pixel_values=pixels).logits[:, :-1]
        losses = F.cross_entropy(logits.transpose(1, 2), self.wanted, ignore_index=IGNORED, reduction="none")
        losses = losses.sum(1) / (self.wanted != IGNORED).sum(1)
        (gradient,) = torch.autograd.grad(losses.sum(), leaf)
        return losses.detach(), gradient


def measure(encoder: str, batch: int, rounds: int) -> dict[str, float]:
    """Milliseconds a step of both sides, how many times faster ours is, and how far losses and gradients are apart."""
    setup = load(encoder, batch)
    images, rows = pixels_of(setup), torch.arange(batch)
    plain = PlainLlava(setup.victim.model, setup)  # type: ignore[attr-defined]
    objective = setup.victim.objective(images, setup.samples, "reference-0")

    def ours() -> tuple[Tensor, Tensor]:
        progress, gradient = gradient_of_all(objective, images, rows)
        return progress.loss, gradient

    sides = {"plain": lambda: plain.gradient(images), "bench": ours}
    found = {name: side() for name, side in sides.items()}
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            began = time.process_time()
            side()
            spent[name].append(1000 * (time.process_time() - began))
    losses, gradients = zip(found["plain"], found["bench"], strict=True)
    return {
        **{f"{name}_ms_per_step": round(median(times), 1) for name, times in spent.items()},
        "speedup": round(median(p / b for p, b in zip(*spent.values(), strict=True)), 3),
        "largest_difference_of_losses": float((losses[0] - losses[1]).abs().max()),
        "largest_difference_of_gradients": float((gradients[0] - gradients[1]).abs().max() / gradients[0].abs().max()),
    }


def main() -> None:
    """Print the measurement as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="fare4")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=8)
    history.add_option(parser)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(asked.encoder, asked.batch, asked.rounds)
    print(json.dumps(found, indent=2))
    if asked.note:
        case = f"{asked.encoder}, batch {asked.batch}, cpu"
        history.note({f"LLaVA step: transformers / bench, {case}, processor seconds": found["speedup"]})


if __name__ == "__main__":
    main()
