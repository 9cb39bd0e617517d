"""LLaVA around any CLIP encoder: transformers' `LlavaForConditionalGeneration` with its tower replaced.

The language side is never retrained. The features are the encoder's patch tokens after the last block but one, before
the final norm, with the class token left out (Liu et al. 2023, arXiv 2310.03744; Schlarmann et al. 2024, section 4).
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import Cache

from bench.data.images import GREY
from bench.errors import UsageError
from bench.models.encoders.encoder import Encoder
from bench.models.encoders.load import digest
from bench.models.encoders.stored import (
    FP16_GRADIENT_SCALE,
    PRECISIONS,
    follow_activations,
    recompute_blocks,
    scale_gradient,
)
from bench.models.victims import prefix
from bench.models.victims.llava.answers import PreparedAnswers, Rows
from bench.models.victims.llava.files import read_llava
from bench.models.victims.llava.lean import can_read_last, make_lean, read_last
from bench.models.victims.llava.memory import Shapes, estimate
from bench.models.victims.llava.native import NativeTower, pads_to_square, read_preprocessing
from bench.models.victims.memory import Need, check_weights, make_room
from bench.models.victims.prompts import Conversation, answer_ids, conversation, pad_left
from tasks.base import Answer, answers_of


def load_llava(
    path: str,
    encoder: Encoder | None,
    *,
    tower: str = "encoder",
    conversation_name: str | None = None,
    pad_to_square: bool = False,
    dtype: torch.dtype | str | None = None,
    device: torch.device | None = None,
) -> "Llava":
    """Load a LLaVA-1.5 checkpoint folder (or hub id) in transformers' format, around ``encoder``.

    Args:
        path: the folder.
        encoder: what replaces the checkpoint's image tower; None goes with "native".
        tower: "encoder", or "native" to keep the checkpoint's own image tower instead.
        conversation_name: one of `prompts.CONVERSATIONS`; None for the checkpoint's chat template.
        pad_to_square: images are padded, not cropped; also where the checkpoint's config asks for it.
        dtype: what the language model is stored in: "auto" for the checkpoint's precision, which is the rule on CUDA
            devices; float32 is the rule elsewhere. What is computed is float32 either way (see `Llava.at`).
        device: where the model goes; by default where the encoder is.

    Raises:
        UsageError: the folder is missing or holds no whole LLaVA checkpoint, or the encoder's features do not fit.
    """
    device = device or (torch.device("cpu") if encoder is None else encoder.mean.device)
    stored = dtype or ("auto" if device.type == "cuda" else torch.float32)
    model, processor = read_llava(path, stored, tower=tower == "native")
    talk = conversation(conversation_name, processor, int(model.config.image_token_id))
    if tower == "native" or encoder is None:
        used: Encoder | NativeTower = _native(model, processor, path)
    else:
        used = encoder
    asked = getattr(model.config, "image_aspect_ratio", None) == "pad" or pads_to_square(processor.image_processor)
    llava = Llava(model, processor.tokenizer, used, talk, pads=pad_to_square or asked)
    chosen = {
        "conversation": conversation_name,
        "image_aspect_ratio": "pad" if pad_to_square else None,
        "tower": "native" if tower == "native" else None,
    }
    llava.settings = {key: value for key, value in chosen.items() if value is not None}
    check_weights(llava, device)
    return llava.to(device)


def _native(model: Any, processor: Any, path: str) -> NativeTower:
    tower = model.model.vision_tower
    return NativeTower(tower, read_preprocessing(tower, processor.image_processor, f"{path}: its image processor"))


class Llava(nn.Module):
    """A LLaVA whose tower is an `Encoder` (or the checkpoint's own); parameters frozen, compute in float32.

    Raises:
        UsageError: the projector expects features of another width.
    """

    model: Any  # LlavaForConditionalGeneration; its submodules are typed as plain modules
    settings: Mapping[str, str]  # that were chosen, for the header
    compute: torch.dtype  # of the language model; images, losses and gradients of images are float32 always

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        encoder: Encoder | NativeTower,
        talk: Conversation,
        *,
        pads: bool,
        compute: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.model = model
        if isinstance(encoder, Encoder):
            self.model.model.vision_tower = nn.Identity()
        self.eval().requires_grad_(False)
        self.tokenizer, self.talk, self.pads = tokenizer, talk, pads
        self.settings = {}
        self.compute = compute
        self.checkpoints = False
        make_lean(self.model)
        if self.stored != torch.float32:
            follow_activations(self.model)
        self.layer = int(self.model.config.vision_feature_layer)
        self.image_id = int(self.model.config.image_token_id)
        self.patches = self._check_features()
        self.prefix = prefix.Prefix(talk.before, self._read_prefix)

    @property
    def stored(self) -> torch.dtype:
        """What the language model's weights are stored in."""
        weight: Tensor = self.model.lm_head.weight
        return weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return self._projector.linear_1.weight.device  # type: ignore[no-any-return]

    @property
    def _projector(self) -> Any:
        return self.model.model.multi_modal_projector

    def _check_features(self) -> int:
        """The number of the encoder's patch tokens, once their width is seen to fit."""
        size = self.encoder.preprocessing.size
        with torch.no_grad():
            tokens = self.encoder.patch_tokens(torch.zeros(1, 3, size, size, device=self.encoder.mean.device))
        width, expected = tokens.shape[2], self._projector.linear_1.in_features
        if width != expected:
            raise UsageError(
                f"{self.model.name_or_path}: the projector expects features of width {expected}, the encoder gives "
                f"{width}; choose an encoder of that width (for LLaVA-1.5 a ViT-L/14), another --vlm, or --tower native"
            )
        return tokens.shape[1]

    def at(self, precision: str) -> "Llava":
        """The same model computing in "bf16" or "fp16"; "float32" is itself.

        Weights that are stored in half precision are shared and cast when used; a model stored in float32 gets a
        copy in half precision. Images are still float32, and so are losses and gradients; float16's small
        gradients are kept by scaling them inside.
        """
        dtype = PRECISIONS[precision]
        if dtype == self.compute:
            return self
        model = self.model
        if self.stored == torch.float32:
            model = copy.deepcopy(model)
            for parameter in model.parameters():
                parameter.data = parameter.data.to(dtype)  # parameters only: rotary frequencies stay float32
        tower = self.encoder.at(precision)
        twin = Llava(model, self.tokenizer, tower, self.talk, pads=self.pads, compute=dtype)
        twin.settings = self.settings
        if self.checkpoints:
            twin.checkpoint_activations()
        return twin

    def digests(self) -> dict[str, str]:
        """SHA-256 of projector and language model, and of the checkpoint's own image tower where that is used."""
        return {"language": digest(self.model)}

    def make_room(self, batch: int | None) -> str:
        """See `bench.models.victims.memory.make_room`."""
        return make_room(self, batch, self.device)

    def need(self, batch: int, *, checkpointing: bool) -> Need:
        """What an attack step on ``batch`` images needs, for prompts and answers as long as the paper's tasks'."""
        return estimate(self.shapes(), batch, checkpointing=checkpointing)

    def shapes(self) -> Shapes:
        """What memory depends on, as the model stands and computes."""
        text = self.model.config.get_text_config()
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        tensors = {t.data_ptr() or id(t): t for t in (*self.parameters(), *self.buffers())}
        return Shapes(
            blocks=text.num_hidden_layers,
            width=text.hidden_size,
            attention=head * text.num_attention_heads,
            keys=head * text.num_attention_heads,  # repeated for each query head before they are kept
            mlp=text.intermediate_size,
            vocabulary=text.vocab_size,
            tower=self.encoder.shapes(self.layer),
            patches=self.patches,
            prefix=self.prefix.kept,
            reads_last=can_read_last(self.model.model.language_model),
            weights=sum(t.numel() * t.element_size() for t in tensors.values()),
            stored=self.stored.itemsize,
            compute=self.compute.itemsize,
        )

    def checkpoint_activations(self) -> None:
        """Trade time for memory: blocks of tower and language model run a second time in each backward pass."""
        self.checkpoints = True
        recompute_blocks(self)
        self.encoder.checkpoint_activations()

    def preprocess(self, image: Image.Image) -> Tensor:
        """(3, H, W) float32 in [0, 1], not normalised: padded to a square where LLaVA-1.5 pads, then as the encoder."""
        if self.pads:
            image = pad_to_square(image, self.encoder.preprocessing.mean)
        return self.encoder.preprocess(image)

    def token_texts(self) -> list[str | None]:
        """What each token of the vocabulary spells; None for those that end an answer."""
        alone = [[token] for token in range(self.model.lm_head.out_features)]
        texts: list[str | None] = list(self.tokenizer.batch_decode(alone, skip_special_tokens=True))
        for token in self.ends():
            texts[token] = None
        return texts

    def answers(self, prompts: Sequence[str], answers: Sequence[str]) -> PreparedAnswers:
        """Prepare B prompts with their answers for scoring candidate images."""
        end = self.tokenizer.eos_token_id
        said = [answer_ids(self.talk, p, a, end) for p, a in zip(prompts, answers, strict=True)]
        asked = [[*self.asked(prompt), *ids] for prompt, ids in zip(prompts, said, strict=True)]
        return PreparedAnswers(self, self.rows(asked), [len(ids) for ids in said])

    def asked(self, prompt: str) -> list[int]:
        """Ids of a prompt, image included, without what the prefix's keys and values stand for."""
        lead = [] if self.prefix.kept else self.talk.before
        return [*lead, *[self.image_id] * self.patches, *self.talk.after(prompt)]

    def rows(self, sequences: Sequence[Sequence[int]]) -> Rows:
        """Token ids as a batch, padded on the left."""
        pad = self.tokenizer.pad_token_id
        rows, seen = pad_left(sequences, self.tokenizer.eos_token_id if pad is None else pad)
        ids, mask = torch.tensor(rows, device=self.device), torch.tensor(seen, device=self.device)
        positions = (mask.cumsum(1) - 1).clamp(min=0) + self.prefix.kept
        return Rows(ids, nn.functional.pad(mask, (self.prefix.kept, 0), value=1), positions)

    def hidden(self, rows: Rows, images: Tensor, count: int) -> Tensor:
        """Last hidden states (B, count, H) of the last tokens of whole sequences with the images' features in place."""
        embedded, model = self.embed(rows.ids, images), self.model.model.language_model
        if can_read_last(model):
            return read_last(model, embedded, rows.mask, rows.positions, self.prefix.states(self.device), count)
        return self._hidden(embedded, rows.mask, rows.positions, self.prefix.fixed(self.device))[:, -count:]

    def embed(self, ids: Tensor, images: Tensor) -> Tensor:
        """Token embeddings (B, T, H) with the image's features in place."""
        if self.compute == torch.float16:
            images = scale_gradient(images, 1 / FP16_GRADIENT_SCALE)
        tokens = self.encoder.patch_tokens(images, self.layer)
        features = self._projector(tokens.to(self.compute))
        return self._embedded(ids).masked_scatter((ids == self.image_id)[..., None], features)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., H) -> (..., V) float32."""
        logits = self.model.lm_head(hidden).float()
        return scale_gradient(logits, FP16_GRADIENT_SCALE) if self.compute == torch.float16 else logits

    def _embedded(self, ids: Tensor) -> Tensor:
        embedded: Tensor = self.model.get_input_embeddings()(ids)
        return embedded.to(self.compute)

    def _hidden(self, embedded: Tensor, mask: Tensor, positions: Tensor, past: Cache | None) -> Tensor:
        """Last hidden states (B, T, H)."""
        model = self.model.model.language_model
        last: Tensor = model(
            inputs_embeds=embedded,
            attention_mask=mask,
            position_ids=positions,
            use_cache=past is not None,
            **{prefix.cache_argument(type(model).forward): past},
        ).last_hidden_state
        return last

    def _read_prefix(self, ids: Tensor, cache: Cache) -> None:
        """Fill a cache with keys and values of ids (1, P)."""
        places = torch.arange(ids.shape[1], device=ids.device)[None]
        self._hidden(self._embedded(ids), torch.ones_like(ids), places, cache)

    @torch.no_grad()
    def generate(self, images: Tensor, prompts: Sequence[str], *, max_new_tokens: int) -> list[Answer]:
        """Greedy answers to B images (B, 3, H, W) in [0, 1], with surrounding space removed.

        An answer is an error where the logits of any of its tokens, the end included, are not finite.
        """
        rows = self.rows([self.asked(prompt) for prompt in prompts])
        past = self.prefix.growing(len(prompts), self.device)
        embedded, mask, positions = self.embed(rows.ids, images), rows.mask, rows.positions
        place = positions[:, -1:]
        ends = torch.tensor(self.ends(), device=self.device)
        done = torch.zeros(len(prompts), dtype=torch.bool, device=self.device)
        finite = ~done
        said: list[Tensor] = []
        while True:
            hidden = self._hidden(embedded, mask, positions, past)
            logits = self.logits(hidden[:, -1:])
            token = logits.argmax(-1)  # (B, 1)
            finite &= done | logits.isfinite().flatten(1).all(1)
            said.append(token.masked_fill(done[:, None], int(ends[0])))
            done = done | torch.isin(token[:, 0], ends)
            if len(said) == max_new_tokens or bool(done.all()):
                break
            place = place + 1
            positions, mask = place, nn.functional.pad(mask, (0, 1), value=1)
            embedded = self._embedded(said[-1])
        texts = self.tokenizer.batch_decode(torch.cat(said, 1), skip_special_tokens=True)
        return answers_of([text.strip() for text in texts], finite)

    def ends(self) -> list[int]:
        """Tokens that end an answer."""
        configured = self.model.generation_config.eos_token_id
        ids = [] if configured is None else [configured] if isinstance(configured, int) else list(configured)
        return list(dict.fromkeys([self.tokenizer.eos_token_id, *ids]))


def pad_to_square(image: Image.Image, mean: Sequence[float]) -> Image.Image:
    """Centre an image on a square of its longer side, filled with int(255 mean), as LLaVA-1.5 does.

    The offset is floor((long - short) / 2) from the left or the top. A greyscale image stays greyscale and gets the
    first channel's fill.
    """
    if image.info.get(GREY):
        image = image.convert("L")
    elif image.mode != "L":
        image = image.convert("RGB")
    width, height = image.size
    if width == height:
        return image
    side, fill = max(width, height), tuple(int(255 * m) for m in mean)
    square = Image.new(image.mode, (side, side), fill[0] if image.mode == "L" else fill)
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square
