"""CLIP image encoders as the tasks see them: pixels in [0, 1] in, embeddings or patch tokens out."""

import copy
from collections.abc import Sequence
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor, nn

from bench.errors import UsageError
from bench.models.encoders.attention import fold_attention
from bench.models.encoders.pixels import Preprocessing
from bench.models.encoders.pooling import embedding_of, pools_class_token
from bench.models.encoders.shapes import TowerShapes
from bench.models.encoders.stored import PRECISIONS
from bench.models.encoders.tokens import token_facts


class TextTower(nn.Module):
    """The frozen text side of a CLIP: what zero-shot classes are embedded with."""

    clip: Any  # open_clip's models and tokenizers share no type of their own

    def __init__(self, clip: nn.Module, tokenizer: Any) -> None:
        super().__init__()
        self.clip = clip
        self.tokenizer = tokenizer

    @property
    def scale(self) -> Tensor:
        """The learned factor on cosine similarities, about 100 for OpenAI's weights."""
        return cast(Tensor, self.clip.logit_scale.exp())

    @property
    def bias(self) -> Tensor | float:
        """What SigLIP adds to a scaled similarity before its sigmoid, about -10; 0 for others."""
        bias = getattr(self.clip, "logit_bias", None)
        return 0.0 if bias is None else cast(Tensor, bias)

    @torch.no_grad()
    def embed(self, texts: Sequence[str]) -> Tensor:
        """(N, D) embeddings of unit length."""
        tokens = self.tokenizer(list(texts)).to(self.clip.logit_scale.device)
        return cast(Tensor, self.clip.encode_text(tokens, normalize=True).float())

    def context(self, text: str) -> Tensor:
        """(C, W): the token embeddings of a text's words."""
        tokens = self.tokenizer([text]).to(self.clip.logit_scale.device)[0]
        last = int(tokens.argmax())  # the token at the end has the highest number
        found: Tensor = self._token_embedding()(tokens[1:last])
        return found.detach()

    def embed_with(self, texts: Sequence[str], context: Tensor) -> Tensor:
        """Unit embeddings (N, D) of texts whose first tokens after the start are embedded as given numbers (C, W)."""
        tokens = self.tokenizer(list(texts)).to(self.clip.logit_scale.device)
        hook = self._token_embedding().register_forward_hook(lambda *call: with_context(call[-1], context))
        try:
            return cast(Tensor, self.clip.encode_text(tokens, normalize=True).float())
        finally:
            hook.remove()

    def _token_embedding(self) -> nn.Module:
        for text in (self.clip, getattr(self.clip, "text", None)):
            if isinstance(found := getattr(text, "token_embedding", None), nn.Module):
                return found
        raise UsageError("this text tower has no token embeddings to tune: its prompt cannot be tuned for each image")

    def classifier(self, classnames: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Class weights (D, K): the templates' unit embeddings of a class, averaged, again of unit length.

        Args:
            classnames: K names.
            templates: texts with one field ``{c}`` each.

        Raises:
            ValueError: a template without the field.
        """
        if lacking := [t for t in templates if "{c}" not in t]:
            raise ValueError(f"templates need a field {{c}} for the class name; without one: {lacking}")
        columns = []
        for name in classnames:
            mean = self.embed([t.replace("{c}", name) for t in templates]).mean(0)
            columns.append(mean / mean.norm())
        return torch.stack(columns, dim=1)


def with_context(embedded: Tensor, context: Tensor) -> Tensor:
    """Token embeddings (N, L, W) with (C, W) in the places after the start.

    >>> with_context(torch.zeros(1, 4, 1), torch.ones(2, 1)).flatten()
    tensor([0., 1., 1., 0.])
    """
    inside = context.to(embedded.dtype).expand(len(embedded), *context.shape)
    return torch.cat([embedded[:, :1], inside, embedded[:, 1 + len(context) :]], dim=1)


class PatchProjection(nn.Module):
    """A ViT's patch embedding as one matrix product; equals the convolution that it replaces.

    The gradient of a strided convolution with respect to its input is slow on CPUs: with this, the miniature tower
    takes 1.3 times as many attack steps a second. The weight keeps its name and shape, so state dicts do not change.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight = convolution.weight  # (W, 3, P, P)
        self.out_channels = convolution.out_channels
        self.kernel_size = convolution.kernel_size

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, W, H/P, W/P)."""
        batch, channels, height, width = images.shape
        p, q = self.kernel_size
        rows, columns = height // p, width // q
        patches = images.reshape(batch, channels, rows, p, columns, q).permute(0, 2, 4, 1, 3, 5)
        tokens = patches.reshape(batch, rows * columns, -1) @ self.weight.flatten(1).T
        return tokens.transpose(1, 2).reshape(batch, -1, rows, columns)


def _is_patch_embedding(module: object) -> bool:
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == module.stride
        and module.bias is None
        and set(module.padding) == {0}
    )


def precise(values: Tensor) -> Tensor:
    """In float32, or in the float64 of a tower that is compared with another implementation."""
    return values if values.dtype == torch.float64 else values.float()


class Encoder(nn.Module):
    """An open_clip image tower with the pixel preprocessing it was trained with.

    Normalisation happens inside, so that threat models live in [0, 1] pixel space (paper, section 4).
    """

    visual: Any  # an image tower of open_clip
    mean: Tensor
    std: Tensor

    def __init__(self, visual: nn.Module, preprocessing: Preprocessing, text: TextTower) -> None:
        super().__init__()
        if _is_patch_embedding(getattr(visual, "conv1", None)):
            visual.conv1 = PatchProjection(cast(nn.Conv2d, visual.conv1))
        fold_attention(visual)
        self.visual = visual
        self.preprocessing = preprocessing
        self.text = text
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    @property
    def width(self) -> int:
        """Channels of a patch token.

        Raises:
            UsageError: the tower has no patch tokens.
        """
        return token_facts(self.visual).width

    @property
    def n_patches(self) -> int:
        """Patch tokens of an image.

        Raises:
            UsageError: the tower has no patch tokens.
        """
        return token_facts(self.visual).n_patches

    def at(self, precision: str) -> "Encoder":
        """This encoder with its image tower in "bf16" or "fp16"; "float32" is the encoder itself.

        Images in and embeddings out stay float32, and normalisation is done in float32. The text tower is shared.
        """
        if precision == "float32":
            return self
        twin = copy.copy(self)  # of the same class, whatever its forward does
        twin._modules = {**self._modules, "visual": copy.deepcopy(self.visual).to(PRECISIONS[precision])}
        return twin

    def preprocess(self, image: Image.Image) -> Tensor:
        """(3, H, W) float32 in [0, 1]: resized and cropped as in training (see `Preprocessing`), not normalised."""
        return self.preprocessing(image)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, D), `precise`: projected, not normalised to unit length.

        Square images of another size than the encoder's are resized inside, so that small images can be attacked at
        their native resolution: bicubic, without antialiasing, not clamped (the paper's code on CIFAR and STL-10).
        """
        pixels = self._inputs(images)
        return precise(embedding_of(self.visual, pixels) if pools_class_token(self.visual) else self.visual(pixels))

    def patch_tokens(self, images: Tensor, layer: int = -2) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, N, W), `precise`: hidden states after a block, before the final layer norm.

        ``layer`` counts as transformers counts hidden states: -2 is the output of the last block but one, which
        LLaVA-1.5 reads (Liu et al. 2023, arXiv 2310.03744). The class token is left out; SigLIP has none.

        Raises:
            UsageError: the tower is no vision transformer, or has too few blocks.
        """
        block = self.block(layer)
        found = self.visual.forward_intermediates(
            self._inputs(images),
            indices=[block],
            stop_early=True,
            intermediates_only=True,
            output_fmt="NLC",
        )
        return precise(found["image_intermediates"][0])

    def shapes(self, layer: int = -2) -> TowerShapes:
        """What the memory of `patch_tokens` and its gradient depends on.

        Raises:
            UsageError: as for `patch_tokens`.
        """
        facts = token_facts(self.visual)
        return TowerShapes(self.block(layer) + 1, facts.width, facts.kept, pixels=0)

    def checkpoint_activations(self) -> None:
        """Trade time for memory: blocks run a second time in each backward pass."""
        self.visual.set_grad_checkpointing(True)

    def block(self, layer: int) -> int:
        """Index of the block whose output transformers counts as this hidden state.

        Raises:
            UsageError: as for `patch_tokens`.
        """
        depth = token_facts(self.visual).depth
        block = depth + layer if layer < 0 else layer - 1
        if not 0 <= block < depth:
            raise UsageError(f"layer {layer} is asked for, the image tower has {depth} blocks")
        return block

    def _inputs(self, images: Tensor) -> Tensor:
        """What the tower sees: resized if need be, normalised, in the tower's precision."""
        size, (height, width) = self.preprocessing.size, images.shape[-2:]
        if height != width:
            raise ValueError(f"images must be square, got {height} x {width}; see Encoder.preprocess")
        if height != size:
            images = nn.functional.interpolate(images, (size, size), mode="bicubic", align_corners=False)
        standardised = (images - self.mean) / self.std
        return standardised.to(next(self.visual.parameters()).dtype)
