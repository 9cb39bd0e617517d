"""Chat endpoints as a family of victims (never imports torch)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bench.errors import UsageError
from bench.models.victims.endpoint.place import SETTINGS, parse
from bench.models.victims.family import Setting, Source

if TYPE_CHECKING:
    import torch

    from bench.models.encoders.encoder import Encoder
    from bench.models.victims.loaded import LoadedVictim

PACE: Mapping[str, Setting] = {
    "rpm": Setting("requests a minute at most"),
    "concurrency": Setting("requests at once"),
    "max-cost": Setting("what a command may spend, in the currency of the price"),
    "price": Setting("of a million tokens, in and out, such as 2.5,10"),
    "cache": Setting("folder where answers are kept"),
}


class EndpointFamily:
    """``openai:URL#MODEL``: any server that speaks OpenAI's chat completions."""

    about = "a model behind an OpenAI-compatible chat endpoint (URL#MODEL): a black box, asked over the network"
    black_box = True
    settings: Mapping[str, Setting] = {**SETTINGS, **PACE}

    def owns(self, source: Source) -> bool:
        """Never: an address alone does not show what speaks there, so that ``openai:`` must name the family."""
        return False

    def load(
        self, source: Source, encoder: "Encoder | None", settings: Mapping[str, str], device: "torch.device"
    ) -> "LoadedVictim":
        """See `bench.models.victims.family.Family.load`; nothing is asked yet."""
        from bench.models.victims.endpoint.victim import load_endpoint

        if encoder is not None:
            raise UsageError(f"{source.place} looks through its own eyes: leave out --encoder")
        return load_endpoint(parse(source.place), settings)
