"""LLaVA-1.5 as a family of victims (never imports torch)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bench.errors import UsageError
from bench.models.victims.family import Setting, Source
from bench.models.victims.llava import ORIGINAL
from bench.models.victims.prompts import CONVERSATIONS

if TYPE_CHECKING:
    import torch

    from bench.models.encoders.encoder import Encoder
    from bench.models.victims.loaded import LoadedVictim


CLIP_TOWER = "clip_vision_model"


class LlavaFamily:
    """Checkpoints of transformers' `LlavaForConditionalGeneration`."""

    about = "LLaVA-1.5 in transformers' format; its image tower is replaced by the encoder"
    settings: Mapping[str, Setting] = {
        "conversation": Setting("how it is asked; by default its own chat template", tuple(CONVERSATIONS)),
        "image_aspect_ratio": Setting("images are padded to squares; by default as its configuration says", ("pad",)),
        "tower": Setting("whose image features it reads; by default the encoder's", ("encoder", "native")),
    }

    def owns(self, source: Source) -> bool:
        """Whether its config says so; the format of the authors' own code is refused with what it needs.

        A "llava" around another tower than a CLIP, such as Pixtral's or SigLIP's, is another family's.
        """
        vision = source.config.get("vision_config")
        tower = vision.get("model_type", CLIP_TOWER) if isinstance(vision, dict) else CLIP_TOWER
        return source.model_type in ORIGINAL or (source.model_type == "llava" and tower == CLIP_TOWER)

    def load(
        self, source: Source, encoder: "Encoder | None", settings: Mapping[str, str], device: "torch.device"
    ) -> "LoadedVictim":
        """See `bench.models.victims.family.Family.load`."""
        from bench.models.victims.llava.model import load_llava

        tower = settings.get("tower", "encoder")
        if encoder is None and tower != "native":
            raise UsageError(f"{source.place} is measured around an encoder; give one, or --tower native for its own")
        return load_llava(
            source.place,
            encoder,
            tower=tower,
            conversation_name=settings.get("conversation"),
            pad_to_square=settings.get("image_aspect_ratio") == "pad",
            device=device,
        )
