"""From a folder or hub id to a victim of any kind that transformers has."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from bench.errors import UsageError
from bench.models.encoders.checkpoint import check_sizes
from bench.models.encoders.encoder import Encoder
from bench.models.encoders.formats import transformers_bars
from bench.models.victims.any_model.asking import Asking, form_of
from bench.models.victims.any_model.model import AnyModel, ends_of
from bench.models.victims.any_model.pixels import ImageInputs
from bench.models.victims.any_model.swap import swap_tower
from bench.models.victims.folder import check_files, check_weight, unreadable
from bench.models.victims.memory import check_weights
from bench.trust import code as trust


def load_any_model(
    place: str, encoder: Encoder | None, *, image_size: int | None = None, device: torch.device | None = None
) -> AnyModel:
    """Load a model folder (or hub id) in transformers' format.

    Args:
        place: the folder.
        encoder: what its image tower is replaced by; None to keep its own.
        image_size: pixels of an image's longer side; None for images as they are.
        device: where it goes; by default the CPU.

    Raises:
        UsageError: it is not whole, asks for code to be run, or cannot be attacked; says why.
    """
    device = device or torch.device("cpu")
    model, processor = read_any_model(place)
    if model.config.get_text_config().is_encoder_decoder:
        raise UsageError(f"{place}: its language model is an encoder-decoder, which this family cannot score yet")
    tower = "native" if encoder is None else _swapped(model, processor, encoder, place)
    form = form_of(processor, model.config.model_type, place)
    image_token = str(getattr(processor, "image_token", None) or "")
    asking = Asking(form, processor.tokenizer, ends_of(model, processor.tokenizer), image_token)
    pixels = ImageInputs(processor, asking.prompt("What is this?"), place)
    chosen = {} if image_size is None else {"image_size": str(image_size)}
    victim = AnyModel(model, processor, asking, pixels, settings=chosen, tower=tower)
    check_weights(victim, device)
    return victim.to(device)


def _swapped(model: Any, processor: Any, encoder: Encoder, place: str) -> str:
    """What became of the image tower, in words."""
    done = swap_tower(model, encoder, processor.image_processor, place)
    return "encoder" + (f", {done}" if done else "")


def read_any_model(place: str) -> tuple[Any, Any]:
    """Model, in float32, and processor.

    Raises:
        UsageError: as of `load_any_model`.
    """
    if not Path(place).is_dir() and (place.count("/") != 1 or place.startswith(".")):
        raise UsageError(f"no such model folder: {place}")
    trust.check(place)
    check_sizes(trust.config_of(place), f"{place}/config.json")
    check_files(Path(place))
    try:
        config = AutoConfig.from_pretrained(place, trust_remote_code=False)
        read: Any = AutoProcessor.from_pretrained
        build: Any = AutoModelForImageTextToText.from_config
        check_weight(Path(place), lambda: build(config, trust_remote_code=False))
        processor = read(place, trust_remote_code=False)
        with transformers_bars():
            loaded: Any = AutoModelForImageTextToText.from_pretrained(
                place, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
            )
    except UsageError:
        raise
    except Exception as error:  # transformers raises anything at all on damaged files
        raise UsageError(unreadable(place, "vision-language model", trust.reason(error))) from error
    model, report = loaded
    if absent := sorted(report["missing_keys"]):
        raise UsageError(f"{place} lacks {len(absent)} of the model's tensors: {absent[:3]}; download it again")
    return model, processor
