"""The image tower that a LLaVA checkpoint came with, as the tasks see an encoder."""

import copy
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor, nn

from bench.models.encoders import pixel_configs
from bench.models.encoders.pixels import Preprocessing
from bench.models.encoders.shapes import TowerShapes
from bench.models.encoders.stored import PRECISIONS, recompute_blocks

PROCESSORS = (*pixel_configs.PROCESSORS, "LlavaImageProcessor", "LlavaImageProcessorFast", "LlavaImageProcessorPil")


def read_preprocessing(tower: Any, image_processor: Any, source: str) -> Preprocessing:
    """The pixel pipeline of a checkpoint's own image tower.

    Raises:
        UsageError: it asks for what cannot be done; the message names the key.
    """
    config = dict(image_processor.to_dict())
    if pads_to_square(image_processor):
        config.pop("do_pad")
    return pixel_configs.of_transformers(config, int(tower.config.image_size), source, PROCESSORS)


def pads_to_square(image_processor: Any) -> bool:
    """Whether an image processor pads to a square before it resizes, as LLaVA's own does."""
    return bool(getattr(image_processor, "do_pad", False)) and type(image_processor).__name__.startswith("Llava")


class NativeTower(nn.Module):
    """transformers' `CLIPVisionModel` with its checkpoint's pixel pipeline (336 px in LLaVA-1.5).

    Weights are float32 until `at` is asked for another precision. Normalisation happens inside.
    """

    visual: Any  # transformers' vision models share no type of their own
    mean: Tensor
    std: Tensor

    def __init__(self, visual: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.visual = visual.float()
        self.preprocessing = preprocessing
        mean, std = preprocessing.mean, preprocessing.std
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    def preprocess(self, image: Image.Image) -> Tensor:
        """(3, H, W) float32 in [0, 1], not normalised: see `Preprocessing`."""
        return self.preprocessing(image)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, W) float32: the class token after the final norm, not projected."""
        return cast(Tensor, self.visual(self._pixels(images)).pooler_output.float())

    def patch_tokens(self, images: Tensor, layer: int = -2) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, N, W) float32: hidden states before the final norm, class token left out."""
        states = self.visual(self._pixels(images), output_hidden_states=True).hidden_states
        return cast(Tensor, states[layer][:, 1:].float())

    def _pixels(self, images: Tensor) -> Tensor:
        return ((images - self.mean) / self.std).to(self.visual.dtype)

    def shapes(self, layer: int = -2) -> TowerShapes:
        """See `bench.models.encoders.encoder.Encoder.shapes`; transformers runs a tower to its last block."""
        config = self.visual.config
        kept = 2 if config.hidden_act == "quick_gelu" else 1
        pixels = 3 * self.preprocessing.size**2
        return TowerShapes(config.num_hidden_layers, config.hidden_size, kept * config.intermediate_size, pixels)

    def checkpoint_activations(self) -> None:
        """Trade time for memory: blocks run a second time in each backward pass."""
        recompute_blocks(self)

    def at(self, precision: str) -> "NativeTower":
        """The same tower computing in "bf16" or "fp16"; "float32" is itself."""
        if precision == "float32":
            return self
        twin = copy.deepcopy(self)
        twin.visual.to(PRECISIONS[precision])
        return twin
