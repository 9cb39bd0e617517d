"""CLIP image encoders as the tasks see them: pixels in [0, 1] in, embeddings or patch tokens out."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF

from bench.models.stored import PRECISIONS


@dataclass(frozen=True)
class Preprocessing:
    """The pixel pipeline an encoder was trained with."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"


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
        return self.clip.logit_scale.exp()

    @torch.no_grad()
    def embed(self, texts: Sequence[str]) -> Tensor:
        """(N, D) embeddings of unit length."""
        tokens = self.tokenizer(list(texts)).to(self.clip.logit_scale.device)
        return self.clip.encode_text(tokens, normalize=True).float()

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
        self.visual = visual
        self.preprocessing = preprocessing
        self.text = text
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    def preprocess(self, image: Image.Image) -> Tensor:
        """(3, H, W) float32 in [0, 1]: shorter side resized, centre crop, not normalised."""
        size = self.preprocessing.size
        image = image.convert("RGB")
        if image.size != (size, size):
            mode = InterpolationMode(self.preprocessing.interpolation)
            image = TF.center_crop(TF.resize(image, [size], mode, antialias=True), [size, size])
        return TF.to_tensor(image)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, D): projected, not normalised to unit length."""
        return self.visual(self._standardise(images))

    def patch_tokens(self, images: Tensor, layer: int = -2) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, N, W): hidden states after a block, before the final layer norm.

        ``layer`` counts as transformers counts hidden states: -2 is the output of the last block but one, which
        LLaVA-1.5 reads (Liu et al. 2023, arXiv 2310.03744). The class token is left out.
        """
        depth = len(self.visual.transformer.resblocks)
        found = self.visual.forward_intermediates(
            self._standardise(images),
            indices=[depth + layer],
            stop_early=True,
            intermediates_only=True,
            output_fmt="NLC",
        )
        return found["image_intermediates"][0]

    def at(self, precision: str) -> "Encoder":
        """The same encoder computing in "bf16" or "fp16", images and embeddings still float32; "float32" is itself."""
        if precision == "float32":
            return self
        return HalfEncoder(copy.deepcopy(self.visual), self.preprocessing, self.text, PRECISIONS[precision])

    def _standardise(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


class HalfEncoder(Encoder):
    """An encoder whose tower computes in half precision."""

    def __init__(self, visual: nn.Module, preprocessing: Preprocessing, text: TextTower, dtype: torch.dtype) -> None:
        super().__init__(visual.to(dtype), preprocessing, text)
        self.to(next(visual.parameters()).device)
        self.dtype = dtype

    def forward(self, images: Tensor) -> Tensor:
        """As `Encoder.forward`; float32."""
        return super().forward(images).float()

    def patch_tokens(self, images: Tensor, layer: int = -2) -> Tensor:
        """As `Encoder.patch_tokens`; float32."""
        return super().patch_tokens(images, layer).float()

    def _standardise(self, images: Tensor) -> Tensor:
        return super()._standardise(images).to(self.dtype)
