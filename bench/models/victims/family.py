"""What a family of victims is: the door for vision-language models and endpoints (never imports torch).

A family is named in the registry's group "bench.victims". It says which checkpoints are its own and loads them; what it
loads answers the tasks and tells a run the little that it needs to know beside.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch

    from bench.models.encoders.encoder import Encoder
    from bench.models.victims.loaded import LoadedVictim


@dataclass(frozen=True)
class Setting:
    """One thing that a suite or a user may choose of a victim; it moves numbers, so headers record it.

    Attributes:
        choices: the values there are; none: any text.
    """

    about: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """Where a victim is read from, and what is known of it before anything is loaded.

    Attributes:
        place: folder, file, hub id or address, as given.
        config: its config.json; empty where it has none.
    """

    place: str
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def model_type(self) -> str | None:
        """What its config.json calls the architecture."""
        found = self.config.get("model_type")
        return found if isinstance(found, str) else None

    @property
    def path(self) -> Path | None:
        """The folder or file, if it lies on this machine."""
        path = Path(self.place)
        return path if path.exists() else None


@runtime_checkable
class Family(Protocol):
    """One kind of victim. Registered as a class that is made without arguments; its module must import no torch.

    A family may have an attribute ``protocols`` beside: the settings that a protocol brings, by the protocol's name. A
    suite's and the user's own settings count before them.

    Attributes:
        about: one line for `bench list victims`.
        settings: what can be chosen, by name.

    A class with a true ``black_box`` gives answers only: no encoder is put into it, and nothing is computed from it.
    """

    about: str
    settings: Mapping[str, Setting]

    def owns(self, source: Source) -> bool:
        """Whether this family reads what lies there; looks at its config and name only."""

    def load(
        self, source: Source, encoder: "Encoder | None", settings: Mapping[str, str], device: "torch.device"
    ) -> "LoadedVictim":
        """Load it around an encoder.

        Args:
            source: see `owns`.
            encoder: what its image tower is replaced by; None to keep its own.
            settings: names and values, checked against ``settings`` above.
            device: where the victim goes; the encoder lies there already.

        Raises:
            UsageError: it is not whole, cannot be read, or does not fit the encoder; names what and the remedy.
        """
