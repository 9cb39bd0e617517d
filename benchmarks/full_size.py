"""One APGD step on models of full size with random weights: does it run, how long, and in how much memory?

Usage: python benchmarks/full_size.py vit --device cpu --batch 2
       python benchmarks/full_size.py llava --device cuda --batch 8 --precision fp16

"vit" is ViT-L/14 at 224 px in float32; "llava" is LLaVA-1.5-7B around it, its language model stored in float16 and
asked with prompts of the length of vicuna_v1's. Prints the step's seconds (elapsed, and of CPU time), the peak of
memory, and the estimate for it.
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder would hide the package "attacks"

import torch
from open_clip.transformer import QuickGELU, VisionTransformer
from torch import Tensor, nn
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from attacks.apgd import apgd
from attacks.objective import Objective, Progress, squared_l2
from attacks.threat import ThreatModel
from bench.models.encoders.encoder import Encoder, Preprocessing, TextTower
from bench.models.victims.llava.memory import estimate
from bench.models.victims.llava.model import Llava
from bench.models.victims.memory import GB

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
THREAT = ThreatModel("linf", 4 / 255)
BEFORE, QUESTION, ANSWER = 35, 24, 12  # tokens of vicuna_v1 before the image, of a VQA question, of a caption


class RandomTalk:
    """Token ids of a conversation's length, without a tokenizer; also stands for the tokenizer."""

    eos_token_id, pad_token_id = 2, 0

    def __init__(self) -> None:
        self.before = list(range(100, 100 + BEFORE))

    def after(self, question: str, answer: str | None = None) -> list[int]:
        """The same ids for every question and answer."""
        return list(range(200, 200 + QUESTION + (ANSWER if answer is not None else 0)))

    def batch_decode(self, ids: Tensor, **_: object) -> list[str]:
        """Ids as they are."""
        return [str(row) for row in ids.tolist()]


def vit_l_14(device: torch.device) -> Encoder:
    """OpenAI's architecture, random weights, float32."""
    torch.manual_seed(0)
    with device:
        visual = VisionTransformer(224, 14, 1024, 24, 16, 4.0, output_dim=768, act_layer=QuickGELU)
    return Encoder(visual, Preprocessing(224, MEAN, STD), TextTower(nn.Identity(), None)).to(device)


def llava_7b(device: torch.device) -> Llava:
    """The architecture of llava-hf/llava-1.5-7b-hf around `vit_l_14`; the language model in float16."""
    vision = CLIPVisionConfig(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16)
    config = LlavaConfig(
        vision_config=vision.to_dict(), text_config=LlamaConfig(vocab_size=32064, rms_norm_eps=1e-5).to_dict()
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float16)
    try:
        with device:
            model = LlavaForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(torch.float32)
    talk = RandomTalk()
    return Llava(model, talk, vit_l_14(device), talk, pads=True).to(device)


def _timed(objective: Objective, images: Tensor, steps: int) -> tuple[float, float, float]:
    """Elapsed and CPU seconds of one APGD step (on a GPU after one that warms up), and the peak of memory in bytes."""
    device = images.device
    start = THREAT.random_start(images, [torch.Generator().manual_seed(i) for i in range(len(images))])
    wait: Callable[[], object] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    if device.type == "cuda":
        apgd(objective, images, THREAT, steps=1, init=start)
        wait()
        torch.cuda.reset_peak_memory_stats(device)
    began, worked = time.perf_counter(), time.process_time()
    outcome = apgd(objective, images, THREAT, steps=steps, init=start)
    wait()
    seconds, cpu = (time.perf_counter() - began) / steps, (time.process_time() - worked) / steps
    if outcome.failed.any() or not THREAT.contains(outcome.images, images).all():
        raise SystemExit("the step failed: loss or gradient not finite, or the image left the ball")
    if device.type == "cuda":
        return seconds, cpu, float(torch.cuda.max_memory_allocated(device))
    return seconds, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=("vit", "llava"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--precision", choices=("float32", "bf16", "fp16"), default="float32")
    parser.add_argument("--checkpointing", action="store_true", help="recompute blocks in the backward pass")
    options = parser.parse_args()
    device = torch.device(options.device)
    images = torch.rand(options.batch, 3, 224, 224, generator=torch.Generator().manual_seed(1)).to(device)
    if options.model == "vit":
        objective, estimated = _of_encoder(vit_l_14(device).at(options.precision), images), ""
    else:
        model = llava_7b(device).at(options.precision)
        if options.checkpointing:
            model.checkpoint_activations()
        need = estimate(
            model.shapes(),
            options.batch,
            checkpointing=options.checkpointing,
            text=QUESTION + ANSWER + 1,
            answer=ANSWER + 1,
        )
        objective = _of_llava(model, options.batch)
        estimated = f", estimated {need.total / GB:.1f} GB"
    seconds, cpu, peak = _timed(objective, images, options.steps)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    print(
        f"{options.model} {options.precision} batch {options.batch} on {name}: {seconds:.2f} s a step "
        f"({cpu:.2f} s of CPU time), peak {peak / GB:.2f} GB{estimated}"
    )


def _of_encoder(encoder: Encoder, images: Tensor) -> Objective:
    """Away from the clean embeddings."""
    with torch.no_grad():
        clean = encoder(images)

    def objective(images: Tensor, rows: Tensor) -> Progress:
        loss = squared_l2(encoder(images), clean[rows])
        return Progress(loss, torch.zeros_like(loss, dtype=torch.bool))

    return objective


def _of_llava(model: Llava, batch: int) -> Objective:
    """Away from one answer."""
    prepared = model.answers([""] * batch, [""] * batch)

    def objective(images: Tensor, rows: Tensor) -> Progress:
        loss = prepared(images, rows).nll
        return Progress(loss, torch.zeros_like(loss, dtype=torch.bool))

    return objective


if __name__ == "__main__":
    main()
