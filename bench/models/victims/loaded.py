"""What a loaded victim gives to tasks and runs."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from tasks.base import Sample, VisionLanguageModel


class ImageEncoder(Protocol):
    """What a victim sees with."""

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> one embedding of each (B, D)."""

    def patch_tokens(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, N, W)."""


class LoadedVictim(VisionLanguageModel, Protocol):
    """A victim in memory: what tasks ask of it (`tasks.base.VisionLanguageModel`), and what a run needs beside.

    Attributes:
        settings: those that were chosen and are not the default, for the header.
    """

    settings: Mapping[str, str]

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    @property
    def encoder(self) -> ImageEncoder:
        """The image encoder that it reads: the one that was put into it, or its own."""

    def digests(self) -> dict[str, str]:
        """SHA-256 of its weights by part, for the header; the encoder's are not among them."""

    def make_room(self, batch: int | None) -> str:
        """Say what an attack on ``batch`` images needs (None: on one at least), save memory if it must, or refuse.

        Raises:
            UsageError: it does not fit; names a batch size that does.
        """


@runtime_checkable
class ShowsExamples(Protocol):
    """A victim that shows examples of a task before a question, and may have to be given them."""

    def wants_examples(self, task: str) -> Literal["texts", "images"] | None:
        """Whether examples for a task must still be given, and if texts are enough; None: it has some."""

    def show(self, task: str, samples: Sequence[Sample]) -> None:
        """Give samples of a training split to draw examples of a task from."""


@runtime_checkable
class OnPixels(Protocol):
    """A victim that is attacked in the user's own pixels, which it resizes itself, and deployed on 8-bit pictures."""

    def deployed(self) -> VisionLanguageModel:
        """The same model as it is deployed: every image becomes an 8-bit picture first."""

    def facts(self, sizes: Sequence[tuple[int, int]]) -> dict[str, Any]:
        """What of it moves a number, for the header; sizes are (height, width) of the run's images."""
