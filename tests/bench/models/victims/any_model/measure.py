"""What is measured of each kind of model: gradients, batches, the 8-bit path, and generation by transformers alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from bench.models.victims.any_model.load import load_any_model, read_any_model
from bench.models.victims.any_model.model import AnyModel
from bench.models.victims.any_model.pixels import pil
from bench.models.victims.any_model.rows import IDS
from tests.bench.models.victims.any_model.kinds import write

SIZE = (40, 52)  # height and width: no square, no multiple of a patch
QUESTIONS = ["what is it?", "is it a red circle or a blue square, and where?", "why", "two green triangles?"]
ANSWERS = ["yes", "a red circle near a square", "no", "a dog"]
STEP = 3e-5  # of the central difference: norms compute in float32 whatever they are given
NEW_TOKENS = 5


@dataclass(frozen=True)
class Measures:
    """Of one kind.

    Attributes:
        gradient: relative error of a directional derivative against central differences, in float64.
        batch: largest difference of a loss between four at a time and one at a time.
        batch_gradient: the same of a gradient, relative to the largest entry.
        decoding: largest difference of an answer's loss from that of transformers' own cached decoding.
        pixels: largest difference between the float path and the 8-bit path, in 1/255, on black and white noise.
        loss: largest difference of a loss between them.
        same_text: whether the 8-bit path says what transformers' own `generate` says, image by image.
        same_batch: whether four at a time get the answers that they get one by one.
        columns: tokens of a short prompt with its image.
        before: of them, those before the image.
    """

    gradient: float
    batch: float
    batch_gradient: float
    decoding: float
    pixels: float
    loss: float
    same_text: bool
    same_batch: bool
    columns: int
    before: int


def images(count: int = 4, seed: int = 3) -> Tensor:
    """(count, 3, H, W) of 8-bit values away from 0 and 1."""
    made = torch.rand(count, 3, *SIZE, generator=torch.Generator().manual_seed(seed)) * 0.5 + 0.25
    return (made * 255).round() / 255


def measure(kind: str, folder: Path) -> Measures:
    """Write a tiny model of a kind and measure it."""
    write(kind, folder)
    victim, plain = load_any_model(str(folder), None), read_any_model(str(folder))
    shown = images()
    losses, gradients = _loss_and_gradient(victim, shown)
    alone = [_loss_and_gradient(victim, shown[k : k + 1], k) for k in range(4)]
    answered = victim.deployed().generate(shown, QUESTIONS, max_new_tokens=NEW_TOKENS)
    deployed = victim.deployed().answers(QUESTIONS, ANSWERS)(shown, torch.arange(4)).nll
    one_by_one = [victim.generate(shown[k : k + 1], QUESTIONS[k : k + 1], max_new_tokens=5)[0] for k in range(4)]
    row = victim.rows(["x"], [None], SIZE).inputs[IDS][0].tolist()
    return Measures(
        gradient=gradient_error(kind, folder),
        batch=float((losses - torch.cat([one for one, _ in alone])).abs().max()),
        batch_gradient=float((gradients - torch.cat([one for _, one in alone])).abs().max() / gradients.abs().max()),
        decoding=max(abs(float(losses[k]) - _decoded_loss(victim, plain, shown[k], k)) for k in range(4)),
        pixels=255 * victim.pixels.gap((shown > 0.5).float()),
        loss=float((losses - deployed).abs().max()),
        same_text=[answer.text for answer in answered] == [_said(victim, plain, shown[k], k) for k in range(4)],
        same_batch=one_by_one == victim.generate(shown, QUESTIONS, max_new_tokens=NEW_TOKENS),
        columns=len(row),
        before=_before_image(victim, row),
    )


def _loss_and_gradient(victim: AnyModel, shown: Tensor, first: int = 0) -> tuple[Tensor, Tensor]:
    few = slice(first, first + len(shown))
    leaf = shown.clone().requires_grad_()
    nll = victim.answers(QUESTIONS[few], ANSWERS[few])(leaf, torch.arange(len(shown))).nll
    (gradient,) = torch.autograd.grad(nll.sum(), leaf)
    return nll.detach(), gradient


def gradient_error(kind: str, folder: Path) -> float:
    """Relative error of the derivative along a direction near the gradient's signs."""
    victim = load_any_model(str(folder), None)
    victim.double()
    victim.compute = torch.float64
    loss, shown = victim.answers(QUESTIONS[1:2], ANSWERS[1:2]), images(1, seed=5).double()
    leaf, row = shown.clone().requires_grad_(), torch.arange(1)
    (gradient,) = torch.autograd.grad(loss(leaf, row).nll.sum(), leaf)
    share = torch.rand(shown.shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    direction = gradient.sign() * (0.5 + share)
    ends = [float(loss(shown + sign * STEP * direction, row).nll) for sign in (1, -1)]
    expected, found = (ends[0] - ends[1]) / (2 * STEP), float((gradient * direction).sum())
    return abs(found - expected) / abs(expected)


def _encoded(victim: AnyModel, plain: tuple[Any, Any], image: Tensor, number: int) -> Any:
    """One question and one 8-bit image, by the processor alone."""
    return plain[1](text=[victim.asking.prompt(QUESTIONS[number])], images=[[pil(image)]], return_tensors="pt")


def _said(victim: AnyModel, plain: tuple[Any, Any], image: Tensor, number: int) -> str:
    """What transformers' own model says."""
    model, processor = plain
    given = _encoded(victim, plain, image, number)
    given.pop("labels", None)
    said = model.eval().generate(**given, do_sample=False, max_new_tokens=NEW_TOKENS)
    text: str = processor.tokenizer.decode(said[0, given[IDS].shape[1] :], skip_special_tokens=True)
    return text.strip()


def _decoded_loss(victim: AnyModel, plain: tuple[Any, Any], image: Tensor, number: int) -> float:
    """The answer's loss by transformers' decoding, token by token, held to the answer, on the float path's pixels."""
    given = _encoded(victim, plain, image, number)
    given.pop("labels", None)
    given.update(victim.image_inputs(image[None]))
    said, length = victim.asking.answer(QUESTIONS[number], ANSWERS[number]), given[IDS].shape[1]
    found = (
        plain[0]
        .eval()
        .generate(
            **given,
            do_sample=False,
            max_new_tokens=len(said),
            eos_token_id=-1,
            prefix_allowed_tokens_fn=lambda _, ids: [said[min(len(ids) - length, len(said) - 1)]],
            output_logits=True,
            return_dict_in_generate=True,
        )
    )
    return float(cross_entropy(torch.cat(found.logits).float(), torch.tensor(said)))


def _before_image(victim: AnyModel, row: list[int]) -> int:
    """Where the image's tokens begin: the first token whose repeat is its neighbour, or that stands for an image."""
    token = getattr(victim.model.config, "image_token_id", None) or getattr(victim.model.config, "image_token_index", 0)
    return row.index(token) if token in row else 0
