"""LLaVA around any CLIP encoder: transformers' `LlavaForConditionalGeneration` with its tower replaced.

The language side is never retrained. The features are the encoder's patch tokens after the last block but one, before
the final norm, with the class token left out (Liu et al. 2023, arXiv 2310.03744; Schlarmann et al. 2024, section 4).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoProcessor, LlavaForConditionalGeneration

from bench.errors import UsageError
from bench.models.encoder import Encoder
from tasks.base import AnswerScores

_QUESTION = "<<question>>"


def load_llava(path: str, encoder: Encoder) -> "Llava":
    """Load a LLaVA checkpoint folder (or hub id) in transformers' format, around ``encoder``.

    Raises:
        UsageError: the folder is missing or holds no LLaVA checkpoint, or the encoder's features do not fit.
    """
    if not Path(path).is_dir() and (("/" in path and not path.count("/") == 1) or path.startswith(".")):
        raise UsageError(f"no such model folder: {path}")
    try:
        processor = AutoProcessor.from_pretrained(path)
        model = LlavaForConditionalGeneration.from_pretrained(path, dtype=torch.float32)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{path} holds no LLaVA checkpoint that can be read: {error}") from error
    return Llava(model, processor, encoder)


class Llava(nn.Module):
    """A LLaVA whose tower is an `Encoder`; parameters frozen, float32.

    Raises:
        UsageError: the projector expects features of another width, or the chat template has no place for an image.
    """

    model: Any  # LlavaForConditionalGeneration; its submodules are typed as plain modules

    def __init__(self, model: LlavaForConditionalGeneration, processor: Any, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.model = model
        self.model.model.vision_tower = nn.Identity()
        self.eval().requires_grad_(False)
        self.tokenizer = processor.tokenizer
        self.tokenizer.padding_side = "left"
        self.layer = int(self.model.config.vision_feature_layer)
        self.image_id = int(self.model.config.image_token_id)
        width, expected = encoder.visual.conv1.out_channels, self._projector.linear_1.in_features
        if width != expected:
            raise UsageError(f"the projector expects features of width {expected}, the encoder gives {width}")
        self.patches = encoder.visual.grid_size[0] * encoder.visual.grid_size[1]
        self.template = self._template(processor)

    @property
    def _projector(self) -> Any:
        return self.model.model.multi_modal_projector

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return self.model.device

    def _template(self, processor: Any) -> str:
        """The chat template with the image's tokens expanded, and a place for the question."""
        content = [{"type": "image"}, {"type": "text", "text": _QUESTION}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        token = self.tokenizer.convert_ids_to_tokens(self.image_id)
        if text.count(token) != 1 or text.count(_QUESTION) != 1:
            raise UsageError(f"the chat template must hold one {token} and the question once; it gives {text!r}")
        return text.replace(token, token * self.patches)

    def _prompt_ids(self, prompts: Sequence[str]) -> list[list[int]]:
        return self.tokenizer([self.template.replace(_QUESTION, prompt) for prompt in prompts]).input_ids

    def _answer_ids(self, prompts: Sequence[str], answers: Sequence[str]) -> list[list[int]]:
        """Tokens of each answer as they follow its prompt, with the end token."""
        asked = self._prompt_ids(prompts)
        texts = [f"{self.template.replace(_QUESTION, p)} {a}" for p, a in zip(prompts, answers, strict=True)]
        whole = self.tokenizer(texts).input_ids
        for prompt, full, answer in zip(asked, whole, answers, strict=True):
            if full[: len(prompt)] != prompt or len(full) == len(prompt):
                raise UsageError(f"the tokenizer does not keep the answer {answer!r} apart from its prompt")
        end = self.tokenizer.eos_token_id
        return [[*full[len(prompt) :], end] for prompt, full in zip(asked, whole, strict=True)]

    def first_tokens(self, texts: Sequence[str]) -> list[int]:
        """The token that each answer begins with, after a prompt."""
        return [ids[0] for ids in self._answer_ids([""] * len(texts), texts)]

    def answers(self, prompts: Sequence[str], answers: Sequence[str]) -> "PreparedAnswers":
        """Prepare B prompts with their answers for scoring candidate images."""
        return PreparedAnswers(self, self._prompt_ids(prompts), self._answer_ids(prompts, answers))

    def _pad_left(self, sequences: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        length, pad = max(map(len, sequences)), self.tokenizer.pad_token_id
        ids = torch.tensor([[*[pad] * (length - len(s)), *s] for s in sequences], device=self.device)
        lengths = torch.tensor([len(s) for s in sequences], device=self.device)
        mask = torch.arange(length, device=self.device) >= length - lengths[:, None]
        return ids, mask.long()

    def _embed(self, ids: Tensor, images: Tensor) -> Tensor:
        """Token embeddings (B, T, H) with the image's features in place."""
        features = self._projector(self.encoder.patch_tokens(images, self.layer))
        embedded = self.model.get_input_embeddings()(ids)
        return embedded.masked_scatter((ids == self.image_id)[..., None], features.to(embedded.dtype))

    @torch.no_grad()
    def generate(self, images: Tensor, prompts: Sequence[str], *, max_new_tokens: int) -> list[str]:
        """Greedy answers to B images (B, 3, H, W) in [0, 1], with surrounding space removed."""
        ids, mask = self._pad_left(self._prompt_ids(prompts))
        said = self.model.generate(
            inputs_embeds=self._embed(ids, images),
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
        )
        return [text.strip() for text in self.tokenizer.batch_decode(said, skip_special_tokens=True)]


class PreparedAnswers:
    """Scores B prepared answers for candidate images; see `tasks.base.AnswerLoss`."""

    def __init__(self, llava: Llava, prompts: list[list[int]], answers: list[list[int]]) -> None:
        self.llava = llava
        self.ids, self.mask = llava._pad_left([[*p, *a] for p, a in zip(prompts, answers, strict=True)])
        self.positions = (self.mask.cumsum(1) - 1).clamp(min=0)
        self.longest = max(map(len, answers))
        lengths = torch.tensor([len(a) for a in answers], device=llava.device)
        place = torch.arange(self.longest, device=llava.device)
        self.counted = place >= self.longest - lengths[:, None]  # (B, L), answers end at the right
        self.begins = self.longest - lengths  # (B,)

    def __call__(self, images: Tensor, rows: Tensor) -> AnswerScores:
        """Judge images (b, 3, H, W); rows (b,) names the prepared answer of each."""
        hidden = self.llava.model.model.language_model(
            inputs_embeds=self.llava._embed(self.ids[rows], images),
            attention_mask=self.mask[rows],
            position_ids=self.positions[rows],
            use_cache=False,
        ).last_hidden_state
        logits = self.llava.model.lm_head(hidden[:, -self.longest - 1 : -1]).float()  # (b, L, V)
        wanted, counted = self.ids[rows, -self.longest :], self.counted[rows]
        nll = nn.functional.cross_entropy(logits.transpose(1, 2), wanted, reduction="none")
        said = logits.argmax(-1)
        greedy = ((said == wanted) | ~counted).all(dim=1)
        first = said.gather(1, self.begins[rows, None]).squeeze(1)
        return AnswerScores((nll * counted).sum(1) / counted.sum(1), greedy, first)
