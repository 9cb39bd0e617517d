"""The image processor of a checkpoint, twice: differentiable on float images, and as deployed on 8-bit images."""

import copy
import inspect
import json
from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_pil_image
from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_utils import SizeDict

from bench.errors import UsageError

PROBE = (56, 72)  # height and width of the image on which the two paths are compared
_MOVING = (  # parts of the names of an image processor's settings
    *("size", "crop", "tile", "patch", "pixels", "merge", "grid", "split", "resample", "resize", "pan", "pad"),
    *("mean", "std"),
)
LARGEST_GAP = 8 / 255  # between the two on a smooth image: rounding after each resize, and what is clamped


class ImageInputs:
    """From images (b, 3, H, W) of one size to what a model takes besides its text.

    Both paths go through the checkpoint's own image processor. The float path does not round, is clamped to [0, 1]
    after each resize as 8-bit pixels are, and lets gradients through.

    Attributes:
        keys: names of the model's inputs that are made of images.

    Raises:
        UsageError: the image processor cannot be differentiated, or treats float images as other images.
    """

    def __init__(self, processor: Any, text: str, place: str) -> None:
        """Take a processor; ``text`` is a prompt with one image."""
        self.place = place
        self._processor = processor.image_processor
        self._soft = _clamping(processor.image_processor)
        self._on_cpu = getattr(self._processor, "resample", None) == Image.Resampling.LANCZOS  # CUDA has none
        probe = _smooth(*PROBE)
        whole = processor(text=[text], images=[[pil(probe)]], return_tensors="pt")
        own = self._processor(images=[[pil(probe)]], return_tensors="pt")
        self.keys = tuple(key for key in own if key in whole)
        self._check(probe, whole)

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Images (b, 3, H, W) in [0, 1] -> the model's inputs, differentiable."""
        place = torch.device("cpu") if self._on_cpu else images.device
        found = self._soft(images=[[image] for image in images.to(place)], do_rescale=False, return_tensors="pt")
        return {key: found[key].to(images.device) for key in self.keys}

    def deployed(self, images: Tensor) -> dict[str, Tensor]:
        """The inputs for the same images as 8-bit pictures (PNG is lossless), as a deployed model is given them."""
        found = self._processor(images=[[pil(image)] for image in images], return_tensors="pt")
        return {key: found[key].to(images.device) for key in self.keys}

    def gap(self, images: Tensor) -> float:
        """The largest difference between the two paths, as a share of the range of a pixel."""
        soft, hard = self(images), self.deployed(images)
        std = float(max(getattr(self._processor, "image_std", None) or [1.0]))
        floats = [key for key in self.keys if soft[key].is_floating_point()]
        return max(float((soft[key] - hard[key]).abs().max()) for key in floats) * std

    def settings(self) -> dict[str, Any]:
        """What of the image processor moves a number: sizes, tiles, limits of pixels."""
        known = json.loads(json.dumps(self._processor.to_dict(), default=str))
        return {key: value for key, value in sorted(known.items()) if any(word in key for word in _MOVING)}

    def _check(self, probe: Tensor, whole: Mapping[str, Any]) -> None:
        """Compare the paths on one image, and the image processor alone with the whole processor."""
        leaf = probe[None].clone().requires_grad_()
        try:
            soft = self(leaf)
        except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
            with_pil = not isinstance(self._processor, TorchvisionBackend)
            remedy = "; it computes with PIL: newer releases may not (pip install -U transformers torchvision)"
            raise UsageError(
                f"{self.place}: its image processor ({type(self._processor).__name__}) takes no float images "
                f"({error}){remedy if with_pil else ''}"
            ) from error
        if not any(value.requires_grad for value in soft.values()):
            raise UsageError(
                f"{self.place}: its image processor ({type(self._processor).__name__}) is not differentiable; only "
                "those that compute with torchvision are"
            )
        alike = all(soft[key].shape == whole[key].shape for key in self.keys)
        if not alike or self.gap(probe[None]) > LARGEST_GAP:
            raise UsageError(
                f"{self.place}: its image processor makes other inputs of float images than of 8-bit ones, so that an "
                "attack would follow another model than the one that is deployed"
            )


def pil(image: Tensor) -> Image.Image:
    """An image (3, H, W) in [0, 1] as an 8-bit picture, rounded."""
    picture: Image.Image = to_pil_image((image.detach() * 255).round().to(torch.uint8).cpu())
    return picture


def _clamping(image_processor: Any) -> Any:
    """A copy whose resized images stay in [0, 1] as 8-bit ones do: they are clamped after each of the two passes.

    A resize goes along the rows first, then along the columns, and what overshoots in between is cut off in 8 bits.
    """
    soft = copy.deepcopy(image_processor)
    if not isinstance(soft, TorchvisionBackend):
        return soft
    resize: Any = soft.resize
    signature = inspect.signature(resize)

    def clamped(*args: Any, **kwargs: Any) -> Any:
        found, given = resize(*args, **kwargs), signature.bind(*args, **kwargs).arguments
        whole = found[0] if isinstance(found, tuple) else found  # Mllama's gives the number of tiles beside
        image, (height, width) = next(iter(given.values())), whole.shape[-2:]  # some call it "images"
        for size in (SizeDict(height=image.shape[-2], width=width), SizeDict(height=height, width=width)):
            image = TorchvisionBackend.resize(soft, image, size, resample=given.get("resample")).clamp(0, 1)
        return (image, *found[1:]) if isinstance(found, tuple) else image

    vars(soft)["resize"] = clamped
    return soft


def _smooth(height: int, width: int) -> Tensor:
    """An image (3, H, W) of 8-bit values in which nothing overshoots."""
    across, down = torch.linspace(0.3, 0.6, width), torch.linspace(0.4, 0.7, height)
    image = torch.stack([across.expand(height, -1), down[:, None].expand(-1, width), (across + down[:, None]) / 2])
    return (image * 255).round() / 255
