"""The network of OpenFlamingo: patch tokens, perceiver, and a language model with gated layers.

The features are the encoder's patch tokens after the last block, before the final norm, with the class token left out.
Nothing but the encoder is ever exchanged or retrained (Schlarmann et al. 2024, arXiv 2402.12336, section 4).
"""

import copy
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import Cache

from bench.errors import UsageError
from bench.models.encoders.encoder import Encoder
from bench.models.encoders.stored import FP16_GRADIENT_SCALE, PRECISIONS, recompute_blocks, scale_gradient
from bench.models.victims.openflamingo.gates import Sight, seeing
from bench.models.victims.openflamingo.language import Family
from bench.models.victims.openflamingo.perceiver import Perceiver
from bench.models.victims.openflamingo.precision import follow
from bench.models.victims.openflamingo.vocabulary import Vocabulary
from bench.models.victims.prefix import cache_argument

# A sum over an answer's tokens is about eight times the mean that the other models' losses are.
GRADIENT_SCALE = FP16_GRADIENT_SCALE / 8


class Network(nn.Module):
    """An OpenFlamingo whose tower is an `Encoder`; parameters frozen, compute in float32.

    Raises:
        UsageError: the perceiver expects features of another width.
    """

    lang_encoder: Any  # a causal language model of transformers; its submodules are typed as plain modules
    compute: torch.dtype  # of perceiver and language model; images, losses and gradients of images are always float32

    def __init__(
        self, encoder: Encoder, perceiver: Perceiver, lang_encoder: nn.Module, family: Family, vocabulary: Vocabulary
    ) -> None:
        super().__init__()
        self.encoder, self.perceiver, self.lang_encoder = encoder, perceiver, lang_encoder
        self.family, self.vocabulary = family, vocabulary
        self.eval().requires_grad_(False)
        self.compute = torch.float32
        self.checkpoints = False
        if not self._whole:
            follow(self.perceiver)
            follow(self.lang_encoder)
        self._check_features()

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return self.perceiver.latents.device

    @property
    def _whole(self) -> bool:
        """Everything but the encoder is stored in one precision, that which is computed in float32."""
        parts = (*self.perceiver.parameters(), *self.lang_encoder.parameters())
        return all(p.dtype == torch.float32 for p in parts)

    def _check_features(self) -> None:
        expected = self.perceiver.latents.shape[1]
        if self.encoder.width != expected:
            raise UsageError(
                f"the perceiver expects features of width {expected}, the encoder gives {self.encoder.width}; choose "
                "an encoder of that width (for the released checkpoints a ViT-L/14)"
            )

    def at(self, precision: str) -> Self:
        """The same model computing in "bf16" or "fp16"; "float32" is itself.

        A model stored in float32 gets a copy in half precision; weights that are stored in half precision are shared,
        and cast when used. Images are still float32, and so are losses and gradients.
        """
        dtype = PRECISIONS[precision]
        if dtype == self.compute:
            return self
        perceiver, language = self.perceiver, self.lang_encoder
        if self._whole:
            perceiver, language = copy.deepcopy(perceiver), copy.deepcopy(language)
            for parameter in (*perceiver.parameters(), *language.parameters()):
                parameter.data = parameter.data.to(dtype)  # parameters only: rotary frequencies stay float32
        twin = type(self)(self.encoder.at(precision), perceiver, language, self.family, self.vocabulary)
        twin.compute = dtype
        if self.checkpoints:
            twin.checkpoint_activations()
        return twin

    def checkpoint_activations(self) -> None:
        """Trade time for memory: blocks of tower and language model run a second time in each backward pass."""
        self.checkpoints = True
        recompute_blocks(self)
        self.encoder.visual.set_grad_checkpointing(True)

    @property
    def longest(self) -> int:
        """Tokens that the language model has positions for."""
        config = self.lang_encoder.config
        return int(getattr(config, "max_seq_len", None) or config.max_position_embeddings)

    def preprocess(self, image: Image.Image) -> Tensor:
        """(3, H, W) float32 in [0, 1], not normalised: as the encoder's."""
        return self.encoder.preprocess(image)

    def latents(self, images: Tensor) -> Tensor:
        """(B, T, 3, H, W) in [0, 1] -> (B, T, L, D)."""
        batch, count = images.shape[:2]
        flat = images.flatten(0, 1)
        if self.compute == torch.float16:
            flat = scale_gradient(flat, 1 / GRADIENT_SCALE)
        tokens = self.encoder.patch_tokens(flat, layer=-1).to(self.compute)
        latents: Tensor = self.perceiver(tokens)
        return latents.view(batch, count, *latents.shape[1:])

    def hidden(self, ids: Tensor, mask: Tensor, sight: Sight, past: Cache | None = None) -> Tensor:
        """Last hidden states (b, S, E) of tokens (b, S); mask (b, P + S), with the P tokens of ``past`` in front."""
        model = getattr(self.lang_encoder, self.family.base)
        embedded = self.lang_encoder.get_input_embeddings()(ids).to(self.compute)
        with seeing(sight):
            last: Tensor = model(
                inputs_embeds=embedded,
                attention_mask=mask,
                use_cache=past is not None,
                **{cache_argument(type(model).forward): past},
            ).last_hidden_state
        return last

    def head(self, hidden: Tensor) -> Tensor:
        """(..., E) -> logits (..., V) float32."""
        logits: Tensor = self.lang_encoder.get_output_embeddings()(hidden).float()
        return scale_gradient(logits, GRADIENT_SCALE) if self.compute == torch.float16 else logits

    def logits(self, images: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Next-token scores (B, S, V) float32 of any texts.

        Args:
            images: (B, T, 3, H, W) in [0, 1]; rows with fewer ``<image>`` tags leave the last ones unused.
            ids: (B, S) token ids, padded on either side.
            mask: (B, S) 1 for a token, 0 for padding.

        Raises:
            UsageError: a text has more tags than there are images.
        """
        seen = (ids == self.vocabulary.image).cumsum(1)
        if (tags := int(seen.max())) > images.shape[1]:
            raise UsageError(f"a text has {tags} <image> tags for {images.shape[1]} images; give an image for each")
        return self.head(self.hidden(ids, mask, Sight(self.latents(images), seen)))
