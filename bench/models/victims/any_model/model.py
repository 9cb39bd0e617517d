"""Any `AutoModelForImageTextToText` as a victim, attacked in the pixels that its user has."""

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import to_tensor
from transformers import LogitsProcessor

from bench.errors import UsageError
from bench.models.encoders.load import digest
from bench.models.encoders.stored import FP16_GRADIENT_SCALE, PRECISIONS, recompute_blocks, scale_gradient
from bench.models.victims.any_model.asking import Asking
from bench.models.victims.any_model.features import Features
from bench.models.victims.any_model.memory import Measured
from bench.models.victims.any_model.pixels import ImageInputs
from bench.models.victims.any_model.rows import IDS, TextRows, batch_rows, one_row
from bench.models.victims.memory import Need, make_room
from tasks.base import Answer, AnswerScores, answers_of

SUFFIX_TYPES = {"paligemma": 1}  # by model_type: the token type of what follows a prompt; 0 elsewhere
PLAIN = {  # greedy decoding without penalties, so that an answer is what the loss is about
    "do_sample": False,
    "num_beams": 1,
    "temperature": None,
    "top_p": None,
    "top_k": None,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "max_length": None,
    "min_length": 0,
    "min_new_tokens": None,
    "bad_words_ids": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
}


class AnyModel(nn.Module):
    """A model with its processor; parameters frozen, images float32 at the size that they have.

    Attributes:
        settings: what was chosen, for the header.
        tower: whose image tower it is, in words.
        compute: what the model computes in; images, losses and gradients of images are float32 always.
    """

    model: Any  # transformers' models share no type that has what is used here

    def __init__(
        self,
        model: nn.Module,
        processor: Any,
        asking: Asking,
        pixels: ImageInputs,
        *,
        settings: Mapping[str, str] | None = None,
        tower: str = "native",
        compute: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.model = model
        self.eval().requires_grad_(False)
        self.processor, self.asking, self.pixels = processor, asking, pixels
        self.settings: Mapping[str, str] = dict(settings or {})
        self.tower, self.compute = tower, compute
        self.checkpoints = False
        self._read: Callable[[Tensor], dict[str, Tensor]] = pixels
        self._accepts = inspect.signature(type(model).forward).parameters
        self._own_positions = hasattr(getattr(self.model, "model", None), "get_rope_index")
        self._measured = Measured(self)

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        device: torch.device = self.model.device
        return device

    @property
    def encoder(self) -> Features:
        """What the language model reads of an image."""
        return Features(self)

    @property
    def image_size(self) -> int | None:
        """Pixels of an image's longer side; None: as the image is."""
        return int(self.settings["image_size"]) if "image_size" in self.settings else None

    def at(self, precision: str) -> "AnyModel":
        """The same model computing in "bf16" or "fp16", a copy; "float32" is itself."""
        dtype = PRECISIONS[precision]
        if dtype == self.compute:
            return self
        model = copy.deepcopy(self.model)
        for parameter in model.parameters():
            parameter.data = parameter.data.to(dtype)  # parameters only: rotary frequencies stay float32
        twin = self._with(model, dtype)
        if self.checkpoints:
            twin.checkpoint_activations()
        return twin

    def deployed(self) -> "AnyModel":
        """The same model, whose images go through 8-bit pictures and its ordinary processor; not differentiable."""
        twin = self._with(self.model, self.compute)
        twin._read = self.pixels.deployed
        return twin

    def _with(self, model: nn.Module, compute: torch.dtype) -> "AnyModel":
        parts = (model, self.processor, self.asking, self.pixels)
        return AnyModel(*parts, settings=self.settings, tower=self.tower, compute=compute)

    def digests(self) -> dict[str, str]:
        """SHA-256 of the model's weights, an encoder's put into it included."""
        return {"model": digest(self.model)}

    def facts(self, sizes: Sequence[tuple[int, int]]) -> dict[str, Any]:
        """What of it moves a number, for the header; sizes are (height, width) of the images that it is asked about."""
        counts = [int(self._row("", None, size)[IDS].shape[1]) for size in sorted(set(sizes))]
        return {
            "model_type": self.model.config.model_type,
            "tower": self.tower,
            "template": self.asking.form.digest,
            "image_processor": self.pixels.settings(),
            "prompt_tokens": f"{min(counts)}-{max(counts)}",  # of an empty question with its image
            "decoding": "greedy",
        }

    def make_room(self, batch: int | None) -> str:
        """See `bench.models.victims.memory.make_room`."""
        return make_room(self, batch, self.device)

    def need(self, batch: int, *, checkpointing: bool) -> Need:
        """What an attack step on ``batch`` images needs, measured on one."""
        return self._measured.need(batch, checkpointing=checkpointing)

    def checkpoint_activations(self) -> None:
        """Trade time for memory: the model's blocks run a second time in each backward pass."""
        self.checkpoints = True
        recompute_blocks(self.model)

    def preprocess(self, image: Image.Image) -> Tensor:
        """(3, H, W) float32 in [0, 1]: the image as it is, or resized to `image_size`."""
        image = image.convert("RGB")
        if self.image_size is not None:
            share = self.image_size / max(image.size)
            width, height = (max(1, round(side * share)) for side in image.size)
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        pixels: Tensor = to_tensor(image)
        return pixels

    def token_texts(self) -> list[str | None]:
        """What each token of the vocabulary spells; None for those that end an answer."""
        count = self.model.get_output_embeddings().weight.shape[0]
        alone = [[token] for token in range(count)]
        texts: list[str | None] = list(self.asking.tokenizer.batch_decode(alone, skip_special_tokens=True))
        for token in self.ends():
            texts[token] = None
        return texts

    def ends(self) -> list[int]:
        """Tokens that end an answer."""
        return ends_of(self.model, self.asking.tokenizer)

    def answers(self, prompts: Sequence[str], answers: Sequence[str]) -> "PreparedAnswers":
        """Prepare B prompts with their answers for scoring candidate images."""
        return PreparedAnswers(self, prompts, answers)

    def rows(self, prompts: Sequence[str], answers: Sequence[str | None], size: tuple[int, int]) -> TextRows:
        """B prompts for images of a size, each with its answer or none."""
        tokenizer = self.asking.tokenizer
        padding = self.ends()[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        rows = [self._row(p, a, size) for p, a in zip(prompts, answers, strict=True)]
        return batch_rows(rows, padding, self.device)

    def _row(self, prompt: str, answer: str | None, size: tuple[int, int]) -> dict[str, Tensor]:
        height, width = size
        blank, asked = Image.new("RGB", (width, height)), self.asking.prompt(prompt)
        try:
            encoded = self.processor(text=[asked], images=[[blank]], return_tensors="pt")
        except ValueError as error:
            raise UsageError(f"the model's processor takes no image of {width} x {height} pixels ({error})") from error
        said = [] if answer is None else self.asking.answer(prompt, answer)
        return one_row(encoded, self.pixels.keys, said, SUFFIX_TYPES.get(self.model.config.model_type, 0))

    def image_inputs(self, images: Tensor) -> dict[str, Tensor]:
        """What the model is given of images (B, 3, H, W) in [0, 1]."""
        half = self.compute == torch.float16
        found = self._read(scale_gradient(images, 1 / FP16_GRADIENT_SCALE) if half else images)
        return {key: value.to(self.compute) if value.is_floating_point() else value for key, value in found.items()}

    def logits(self, text: TextRows, images: Tensor, last: int) -> Tensor:
        """(B, last, V) float32, of the last tokens of each row with images (B, 3, H, W) in place."""
        given = {**text.inputs, **self.image_inputs(images), "use_cache": False}
        if text.padded and not self._own_positions and "position_ids" in self._accepts:
            given["position_ids"] = text.positions
        if "logits_to_keep" in self._accepts:
            given["logits_to_keep"] = last
        found: Tensor = self.model(**given).logits[:, -last:]
        found = found.to(torch.promote_types(found.dtype, torch.float32))
        return scale_gradient(found, FP16_GRADIENT_SCALE) if self.compute == torch.float16 else found

    @torch.no_grad()
    def generate(self, images: Tensor, prompts: Sequence[str], *, max_new_tokens: int) -> list[Answer]:
        """Greedy answers to B images (B, 3, H, W) in [0, 1], by transformers' own `generate`; space around is removed.

        An answer is an error where the logits of any of its tokens, the end included, are not finite.
        """
        text = self.rows(prompts, [None] * len(prompts), (int(images.shape[2]), int(images.shape[3])))
        length, watch = text.inputs[IDS].shape[1], Finite(self.ends())
        said: Tensor = self.model.generate(
            **text.inputs,
            **self.image_inputs(images),
            generation_config=self._plain(max_new_tokens),
            logits_processor=[watch],
        )
        texts = self.asking.tokenizer.batch_decode(said[:, length:], skip_special_tokens=True)
        return answers_of([text.strip() for text in texts], watch.finite)

    def _plain(self, max_new_tokens: int) -> Any:
        chosen = copy.deepcopy(self.model.generation_config)
        for key, value in {**PLAIN, "max_new_tokens": max_new_tokens, "eos_token_id": self.ends()}.items():
            setattr(chosen, key, value)
        if chosen.pad_token_id is None:
            chosen.pad_token_id = self.ends()[0]
        return chosen


class Finite(LogitsProcessor):  # type: ignore[no-untyped-call, unused-ignore]
    """Changes no logit; remembers in which rows all were finite until the row ended."""

    def __init__(self, ends: Sequence[int]) -> None:
        self.ends = list(ends)
        self.finite = self._done = torch.empty(0, dtype=torch.bool)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # type: ignore[override, unused-ignore]
        """Look at the scores (B, V) of the next token of each row."""
        if not len(self.finite):
            self.finite = torch.ones(len(scores), dtype=torch.bool, device=scores.device)
            self._done = ~self.finite
        else:
            self._done = self._done | torch.isin(input_ids[:, -1], torch.tensor(self.ends, device=scores.device))
        self.finite = self.finite & (self._done | scores.isfinite().all(1))
        return scores


class PreparedAnswers:
    """Scores B prepared answers for candidate images; see `tasks.base.AnswerLoss`."""

    def __init__(self, reader: AnyModel, prompts: Sequence[str], answers: Sequence[str]) -> None:
        self.reader, self.prompts, self.said = reader, list(prompts), list(answers)
        lengths = [len(reader.asking.answer(p, a)) for p, a in zip(prompts, answers, strict=True)]
        self.longest = max(lengths)
        counts = torch.tensor(lengths, device=reader.device)
        place = torch.arange(self.longest, device=reader.device)
        self.counted = place >= self.longest - counts[:, None]  # (B, L), answers end at the right
        self.begins = self.longest - counts  # (B,)
        self._rows: dict[tuple[int, int], TextRows] = {}

    def __call__(self, images: Tensor, rows: Tensor) -> AnswerScores:
        """Score images (b, 3, H, W); rows (b,) names the prepared answer of each."""
        size = (int(images.shape[2]), int(images.shape[3]))
        if size not in self._rows:
            self._rows[size] = self.reader.rows(self.prompts, self.said, size)
        text = self._rows[size].of(rows)
        logits = self.reader.logits(text, images, self.longest + 1)[:, :-1]  # (b, L, V)
        counted = self.counted[rows]
        wanted = text.inputs[IDS][:, -self.longest :] * counted  # of a prompt, an image's token may have no logit
        nll = nn.functional.cross_entropy(logits.transpose(1, 2), wanted, reduction="none")
        said = logits.argmax(-1)
        greedy = ((said == wanted) | ~counted)[:, :-1].all(dim=1)  # whether the end token follows is no matter
        first = said.gather(1, self.begins[rows, None]).squeeze(1)
        return AnswerScores((nll * counted).sum(1) / counted.sum(1), greedy, first)


def ends_of(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end an answer, by the checkpoint's generation settings and its tokenizer."""
    configured = model.generation_config.eos_token_id
    ids = [] if configured is None else [configured] if isinstance(configured, int) else list(configured)
    return [token for token in dict.fromkeys([*ids, tokenizer.eos_token_id]) if token is not None]
