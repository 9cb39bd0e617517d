"""Pixel pipelines as open_clip and transformers write them down: done as they say, or refused by the key.

Of transformers' two image processors the one on PIL images is the reference (`CLIPImageProcessorPil`, once
`CLIPImageProcessor`): CLIP models were trained on PIL's resizing. The one on torchvision tensors differs from it by
rounding, and by a pixel where an image is smaller than the crop.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.errors import UsageError
from bench.models.encoders.pixels import INTERPOLATIONS, Preprocessing

PROCESSORS = ("CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil", "CLIPFeatureExtractor")
_DEFAULT = 224  # pixels, of transformers' CLIPImageProcessor
Triple = tuple[float, float, float]


def of_open_clip(config: Mapping[str, Any], image_size: Any, source: Path | str) -> Preprocessing:
    """open_clip's ``preprocess_cfg`` of an image tower that takes ``image_size`` pixels.

    Raises:
        UsageError: it asks for what cannot be done; the message names the key.
    """
    size = square(image_size, str(source))
    if not {"mean", "std"} <= config.keys():
        raise UsageError(f"{source}: preprocess_cfg lacks mean or std; without them the pixels would be guessed")
    mode = config.get("resize_mode") or "shortest"
    if mode not in ("shortest", "squash"):
        raise UsageError(f"{source}: resize_mode {mode!r} is not supported; known: shortest, squash")
    asked = config.get("size", size)
    if asked not in (size, [size, size]):
        raise UsageError(f"{source}: preprocess_cfg says size {asked}, the image tower takes {size} pixels")
    interpolation = config.get("interpolation") or "bicubic"  # open_clip's own default
    if interpolation not in ("bicubic", "bilinear"):
        raise UsageError(f"{source}: interpolation {interpolation!r} is not supported; known: bicubic, bilinear")
    if config.get("mode", "RGB") != "RGB":
        raise UsageError(f"{source}: mode {config['mode']!r} is not supported; known: RGB")
    mean, std = _channels(config, "mean", source), _channels(config, "std", source)
    return Preprocessing(size, mean, std, interpolation, mode)


def of_transformers(
    config: Mapping[str, Any], size: int, source: Path | str, processors: tuple[str, ...] = PROCESSORS
) -> Preprocessing:
    """A ``preprocessor_config.json`` of transformers, for an image tower that takes ``size`` pixels.

    A key that is absent or null means what it means to `CLIPImageProcessor`; mean and std must be there. Another
    scale of the pixels than 1/255 goes into mean and std.

    Raises:
        UsageError: it asks for what cannot be done; the message names the key.
    """
    config = {key: value for key, value in config.items() if value is not None}
    kind = config.get("image_processor_type", config.get("feature_extractor_type", processors[0]))
    if kind not in processors:
        raise UsageError(f"{source}: image_processor_type {kind!r} is not supported; known: {', '.join(processors)}")
    for key in ("do_pad", "use_square_size"):
        if _flag(config, key, False, source):
            raise UsageError(f"{source}: {key} is not supported; delete the key if the model does without")
    resample = config.get("resample", 3)
    if isinstance(resample, bool) or not isinstance(resample, int) or resample not in INTERPOLATIONS:
        raise UsageError(f"{source}: resample {resample!r} is not supported; known: PIL's {INTERPOLATIONS}")
    mode, resized = _resizing(config, source)
    if _flag(config, "do_center_crop", True, source):
        crop = _height_and_width(config.get("crop_size", _DEFAULT), "crop_size", source)
        if crop != (size, size):
            raise UsageError(f"{source}: crop_size is {crop[0]} x {crop[1]}, the image tower takes {size} pixels")
    elif resized != (size, size):
        raise UsageError(
            f"{source}: do_center_crop is false, so images come out of another size than the {size} pixels that the "
            'image tower takes; set it, or "size" to a height and width of that many'
        )
    mean, std = _normalisation(config, source)
    return Preprocessing(size, mean, std, INTERPOLATIONS[resample], mode, resized, crop="transformers")


def square(size: Any, source: str) -> int:
    """The side of square images.

    Raises:
        UsageError: they are not square.
    """
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if sides[0] != sides[1]:
        raise UsageError(f"{source}: images of {sides} pixels are not square, which is not supported")
    return int(sides[0])


def _resizing(config: Mapping[str, Any], source: Path | str) -> tuple[str, int | tuple[int, int] | None]:
    """Mode, and to what."""
    if not _flag(config, "do_resize", True, source):
        return "none", None
    size = config.get("size", {"shortest_edge": _DEFAULT})
    if isinstance(size, dict):
        size = {key: value for key, value in size.items() if value is not None}
        if size.keys() == {"shortest_edge"}:
            return "shortest", _pixels(size["shortest_edge"], "size", source)
    elif not isinstance(size, list) and not _flag(config, "default_to_square", False, source):
        return "shortest", _pixels(size, "size", source)
    return "squash", _height_and_width(size, "size", source)


def _height_and_width(value: Any, key: str, source: Path | str) -> tuple[int, int]:
    if isinstance(value, dict) and value.keys() == {"height", "width"}:
        value = [value["height"], value["width"]]
    elif not isinstance(value, dict | list):
        value = [value, value]
    if not isinstance(value, list) or len(value) != 2:
        raise UsageError(f'{source}: {key} {value!r} is not supported; known: pixels, or "height" and "width"')
    return _pixels(value[0], key, source), _pixels(value[1], key, source)


def _pixels(value: Any, key: str, source: Path | str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= 10_000:
        raise UsageError(f"{source}: {key} must be a number of pixels, not {value!r}")
    return value


def _normalisation(config: Mapping[str, Any], source: Path | str) -> tuple[Triple, Triple]:
    """Mean and std for pixels in [0, 1]."""
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if _flag(config, "do_normalize", True, source):
        if not {"image_mean", "image_std"} <= config.keys():
            raise UsageError(f"{source} lacks image_mean or image_std; without them the pixels would be guessed")
        mean, std = _channels(config, "image_mean", source), _channels(config, "image_std", source)
    factor = config.get("rescale_factor", 1 / 255)
    if not _number(factor) or factor <= 0:
        raise UsageError(f"{source}: rescale_factor must be a number above 0, not {factor!r}")
    scale = 255 * (factor if _flag(config, "do_rescale", True, source) else 1)
    if math.isclose(scale, 1):
        return mean, std
    return (mean[0] / scale, mean[1] / scale, mean[2] / scale), (std[0] / scale, std[1] / scale, std[2] / scale)


def _channels(config: Mapping[str, Any], key: str, source: Path | str) -> Triple:
    """A number for each channel; one number stands for all."""
    value = config[key]
    values = [value] * 3 if _number(value) else value
    whole = isinstance(values, list | tuple) and len(values) == 3 and all(_number(v) for v in values)
    if not whole or ("std" in key and min(values) <= 0):
        raise UsageError(
            f"{source}: {key} must be a number{' above 0' if 'std' in key else ''} for each of 3 channels, "
            f"not {value!r}"
        )
    return float(values[0]), float(values[1]), float(values[2])


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9 and value == value


def _flag(config: Mapping[str, Any], key: str, default: bool, source: Path | str) -> bool:
    value = config.get(key, default)
    if not isinstance(value, bool):
        raise UsageError(f"{source}: {key} must be true or false, not {value!r}")
    return value
