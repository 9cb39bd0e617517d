"""Every `AutoModelForImageTextToText` as one family of victims (imports torch only when it is asked)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bench.errors import UsageError
from bench.models.victims.family import Setting, Source

if TYPE_CHECKING:
    import torch

    from bench.models.encoders.encoder import Encoder
    from bench.models.victims.loaded import LoadedVictim

SMALLEST_SIDE = 8  # pixels that --image-size may ask for


class AnyModelFamily:
    """Folders and hub ids whose model_type transformers maps to an image-text-to-text model."""

    about = "any image-text-to-text model of transformers, attacked in the user's own pixels"
    settings: Mapping[str, Setting] = {
        "image_size": Setting("pixels of an image's longer side; by default each image keeps its size"),
        "tower": Setting("whose image features it reads; by default its own", ("encoder", "native")),
    }

    def owns(self, source: Source) -> bool:
        """Whether transformers itself has such a model."""
        from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as KNOWN

        return source.model_type in KNOWN

    def load(
        self, source: Source, encoder: "Encoder | None", settings: Mapping[str, str], device: "torch.device"
    ) -> "LoadedVictim":
        """See `bench.models.victims.family.Family.load`."""
        from bench.models.victims.any_model.load import load_any_model

        put_in = None if settings.get("tower") == "native" else encoder
        return load_any_model(source.place, put_in, image_size=_side(settings.get("image_size")), device=device)


def _side(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or int(text) < SMALLEST_SIDE:
        raise UsageError(f"--image-size takes a whole number of pixels from {SMALLEST_SIDE}, not {text!r}")
    return int(text)
