"""One APGD step on models of full size with random weights: does it run, how long, and in how much memory?

Usage: python benchmarks/full_size.py vit --device cpu --batch 2
       python benchmarks/full_size.py llava --device cpu --batch 1 --precision bf16
       python benchmarks/full_size.py openflamingo --device cpu --batch 1 --precision bf16
       python benchmarks/full_size.py llava --device cuda --batch 8 --precision bf16 --precision float32

"vit" is ViT-L/14 at 224 px in float32; "llava" is LLaVA-1.5-7B around it, asked with prompts of the length of
vicuna_v1's; "openflamingo" is OpenFlamingo-3B on MPT-1B, asked after two demonstrations without images. Language models
are stored in the half precision that is asked for first, or in float16. Prints the step's seconds (elapsed, and of CPU
time), its products' operations and their rate, the seconds of one generated token, the peak of memory of the whole
process, and for LLaVA the estimate for a step.
"""

import argparse
import contextlib
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder would hide the package "attacks"

import torch
from open_clip.transformer import QuickGELU, VisionTransformer
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from attacks.apgd import apgd
from attacks.objective import Objective, Progress, squared_l2
from attacks.threat import ThreatModel
from bench.models.encoders.encoder import Encoder, Preprocessing, TextTower
from bench.models.victims.llava.memory import estimate
from bench.models.victims.llava.model import Llava
from bench.models.victims.memory import GB
from bench.models.victims.openflamingo import checkpoint
from bench.models.victims.openflamingo.language import family_of
from bench.models.victims.openflamingo.model import OpenFlamingo
from bench.models.victims.openflamingo.prompts import Prompt
from bench.models.victims.openflamingo.vocabulary import Vocabulary
from tasks.base import AnswerLoss

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
THREAT = ThreatModel("linf", 4 / 255)
BEFORE, QUESTION, ANSWER = 35, 24, 12  # tokens of vicuna_v1 before the image, of a VQA question, of a caption
STORED = {"float32": torch.float16, "fp16": torch.float16, "bf16": torch.bfloat16}  # by the precision of a step
DEMONSTRATIONS = 50  # tokens of two of them
TOKENS = 50_277  # of MPT-1B's tokenizer, which OpenFlamingo gives three more


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


@contextlib.contextmanager
def made_in(dtype: torch.dtype) -> Iterator[None]:
    """Parameters that are made meanwhile have this type and random values."""
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def llava_7b(device: torch.device, stored: torch.dtype, layers: int | None) -> Llava:
    """The architecture of llava-hf/llava-1.5-7b-hf around `vit_l_14`."""
    vision = CLIPVisionConfig(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16)
    text = LlamaConfig(vocab_size=32064, rms_norm_eps=1e-5, **({} if layers is None else {"num_hidden_layers": layers}))
    config = LlavaConfig(vision_config=vision.to_dict(), text_config=text.to_dict())
    with made_in(stored), device:
        model = LlavaForConditionalGeneration(config)
    talk = RandomTalk()
    return Llava(model, talk, vit_l_14(device), talk, pads=True).to(device)


def openflamingo_3b(device: torch.device, stored: torch.dtype, layers: int | None) -> OpenFlamingo:
    """The architecture of OpenFlamingo-3B-vitl-mpt1b around `vit_l_14`; a tokenizer of as many words, w0, w1, ..."""
    config = {
        "model_type": "mosaic_gpt",
        "d_model": 2048,
        "n_heads": 16,
        "n_layers": layers or 24,
        "vocab_size": TOKENS,
        "max_seq_len": 2048,
        "attn_qk_ln": True,
    }
    family, settings = family_of(config, "MPT-1B")
    words = Tokenizer(WordLevel({f"w{number}": number for number in range(TOKENS)}, unk_token="w0"))
    words.pre_tokenizer = WhitespaceSplit()
    vocabulary = Vocabulary(words)
    with made_in(stored), device:
        language = family.kind(settings)
        perceiver = checkpoint.build(language, family, checkpoint.Architecture.standard(1024, 2048, 1), len(vocabulary))
    return OpenFlamingo(vit_l_14(device), perceiver, language, family, vocabulary).to(device)


class Timing(NamedTuple):
    """Of one APGD step: seconds elapsed and of CPU time, operations of its products, the peak of memory in bytes."""

    seconds: float
    cpu: float
    operations: float
    peak: float


def _timed(objective: Objective, images: Tensor, steps: int) -> Timing:
    """The mean over some steps; operations are counted in the same steps, on a GPU in a run before, which warms up."""
    device = images.device
    on_gpu = device.type == "cuda"
    start = THREAT.random_start(images, [torch.Generator().manual_seed(i) for i in range(len(images))])
    wait: Callable[[], object] = torch.cuda.synchronize if on_gpu else lambda: None
    counter = FlopCounterMode(display=False)
    if on_gpu:
        with counter:
            apgd(objective, images, THREAT, steps=steps, init=start)
        wait()
        torch.cuda.reset_peak_memory_stats(device)
    began, worked = time.perf_counter(), time.process_time()
    with contextlib.nullcontext() if on_gpu else counter:
        outcome = apgd(objective, images, THREAT, steps=steps, init=start)
    wait()
    seconds, cpu = (time.perf_counter() - began) / steps, (time.process_time() - worked) / steps
    if outcome.failed.any() or not THREAT.contains(outcome.images, images).all():
        raise SystemExit("the step failed: loss or gradient not finite, or the image left the ball")
    if on_gpu:
        peak = float(torch.cuda.max_memory_allocated(device))
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
    return Timing(seconds, cpu, counter.get_total_flops() / steps, peak)


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=("vit", "llava", "openflamingo"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--precision", choices=STORED, action="append", help="may be repeated; default: float32")
    parser.add_argument("--checkpointing", action="store_true", help="recompute blocks in the backward pass")
    parser.add_argument("--layers", type=int, help="of the language model, to try this out; default: all")
    options = parser.parse_args()
    device = torch.device(options.device)
    images = torch.rand(options.batch, 3, 224, 224, generator=torch.Generator().manual_seed(1)).to(device)
    precisions = options.precision or ["float32"]
    model = _model(options, device, STORED[precisions[0]])
    for precision in precisions:
        _report(options, precision, model, images)


def _report(options: argparse.Namespace, precision: str, model: Any, images: Tensor) -> None:
    """Measure a model in one precision, and print it."""
    device = images.device
    objective, say, estimated = _subject(options, model.at(precision), images)
    took = _timed(objective, images, options.steps)
    began = time.perf_counter()
    said = say()
    spoken = f", {time.perf_counter() - began:.2f} s for {said} generated token an image" if said else ""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    print(
        f"{options.model} {precision} batch {options.batch} on {name}: {took.seconds:.3f} s a step "
        f"({took.cpu:.2f} s of CPU time), {took.operations / 1e12:.2f} TFLOP, "
        f"{took.operations / took.seconds / 1e12:.2f} TFLOP/s{spoken}, peak {took.peak / GB:.2f} GB{estimated}",
        flush=True,
    )


Subject: TypeAlias = tuple[Objective, Callable[[], int], str]
"""What is attacked; what lets it say one token per image and returns how many that were; the estimate in words."""


def _model(options: argparse.Namespace, device: torch.device, stored: torch.dtype) -> Any:
    """A model of full size."""
    if options.model == "vit":
        return vit_l_14(device)
    model = (llava_7b if options.model == "llava" else openflamingo_3b)(device, stored, options.layers)
    if options.checkpointing:
        model.checkpoint_activations()
    return model


def _subject(options: argparse.Namespace, model: Any, images: Tensor) -> Subject:
    """What is attacked in a model."""
    if options.model == "vit":
        return _of_encoder(model, images), lambda: 0, ""
    if isinstance(model, OpenFlamingo):
        shown, question, answer = (" ".join(["w7"] * n) for n in (DEMONSTRATIONS, QUESTION, ANSWER))
        prompts = [Prompt(f"{shown} <image> {question}")] * options.batch
        return _away_from(model.answers(prompts, [answer] * options.batch)), _speaking(model, images, prompts), ""
    need = estimate(
        model.shapes(),
        options.batch,
        checkpointing=options.checkpointing,
        text=QUESTION + ANSWER + 1,
        answer=ANSWER + 1,
    )
    questions = [""] * options.batch
    away = _away_from(model.answers(questions, questions))
    return away, _speaking(model, images, questions), f", estimated {need.total / GB:.1f} GB"


def _speaking(model: Any, images: Tensor, prompts: Sequence[Any]) -> Callable[[], int]:
    def say() -> int:
        model.generate(images, prompts, max_new_tokens=1)
        return 1

    return say


def _of_encoder(encoder: Encoder, images: Tensor) -> Objective:
    """Away from the clean embeddings."""
    with torch.no_grad():
        clean = encoder(images)

    def objective(images: Tensor, rows: Tensor) -> Progress:
        loss = squared_l2(encoder(images.clone()), clean[rows])  # a leaf would stop the counter of operations
        return Progress(loss, torch.zeros_like(loss, dtype=torch.bool))

    return objective


def _away_from(prepared: AnswerLoss) -> Objective:
    """Away from the prepared answers."""

    def objective(images: Tensor, rows: Tensor) -> Progress:
        loss = prepared(images, rows).nll
        return Progress(loss, torch.zeros_like(loss, dtype=torch.bool))

    return objective


if __name__ == "__main__":
    main()
