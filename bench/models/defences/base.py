"""What a defence is, and how an attacker who knows it looks through it."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from bench.errors import UsageError
from bench.models.defences.draws import Draws
from tasks.base import TextClassifier


@dataclass(frozen=True)
class See:
    """What stands behind a defence.

    Attributes:
        look: images (B, 3, H, W) in [0, 1] -> embeddings (B, D), a row for each image.
        text: the text tower beside it; None in front of a vision-language model.
        original: looks with the encoder that the model's own was fine-tuned from; None where it is that one, or where
            no defence asks for it.
    """

    look: Callable[[Tensor], Tensor]
    text: TextClassifier | None = None
    original: Callable[[Tensor], Tensor] | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D)."""
        return self.look(images)


class Defence(ABC):
    """A wrapper around an image encoder; a frozen dataclass whose fields are its options.

    An answer about one image must depend on that image and its own draws alone.

    Attributes:
        about: one line for humans.
        randomised: whether answers change from draw to draw.
        own_gradient: whether the gradient of `embed` is that of the surrogate already, so that BPDA adds nothing.
    """

    about: ClassVar[str]
    randomised: ClassVar[bool] = False
    own_gradient: ClassVar[bool] = False

    @property
    def needs_original(self) -> bool:
        """Whether it looks with the encoder that the model's own was fine-tuned from."""
        return False

    @abstractmethod
    def embed(self, images: Tensor, see: See, draws: Draws) -> Tensor:
        """Embeddings (B, D) as the defended model has them, with whatever gradient it has."""

    def surrogate(self, images: Tensor, see: See, draws: Draws) -> Tensor:
        """The same numbers with the gradient of a stand-in: what BPDA follows (Athalye et al. 2018, 1802.00420).

        By default the defence counts as the identity on the way back.
        """
        plain = see(images)
        with torch.no_grad():
            defended = self.embed(images.detach(), see, draws)
        return with_gradient_of(defended, plain)


class ImageDefence(Defence):
    """A defence that changes the image and leaves the model alone: it stands before any victim."""

    @abstractmethod
    def purify(self, images: Tensor, see: See, draws: Draws) -> Tensor:
        """The images (B, 3, H, W) that the model is shown."""

    def purify_surrogate(self, images: Tensor, see: See, draws: Draws) -> Tensor:
        """The same images with the gradient of a stand-in; by default that of the identity."""
        with torch.no_grad():
            purified = self.purify(images.detach(), see, draws)
        return with_gradient_of(purified, images)

    def embed(self, images: Tensor, see: See, draws: Draws) -> Tensor:
        """What the model says of the changed images."""
        return see(self.purify(images, see, draws))

    def surrogate(self, images: Tensor, see: See, draws: Draws) -> Tensor:
        """The same, with the stand-in's gradient."""
        return see(self.purify_surrogate(images, see, draws))


class ClassifierDefence(Defence):
    """A defence that changes how classes are told apart: it stands before zero-shot classification, last of several."""

    @abstractmethod
    def logits(self, images: Tensor, see: See, classnames: tuple[str, ...], draws: Draws) -> Tensor:
        """Logits (B, K) of the defended classifier, with whatever gradient they have."""

    @abstractmethod
    def logits_surrogate(self, images: Tensor, see: See, classnames: tuple[str, ...], draws: Draws) -> Tensor:
        """The same numbers with the gradient of a stand-in."""

    def embed(self, images: Tensor, see: See, draws: Draws) -> Tensor:
        """Refuse: there are no embeddings.

        Raises:
            UsageError: always.
        """
        name = type(self).__name__.lower()
        raise UsageError(f"defence {name!r} answers with classes: it stands before zero-shot classification alone")


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, value: Tensor, source: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, gradients[0]


def with_gradient_of(value: Tensor, source: Tensor) -> Tensor:
    """`value`, bit for bit, whose gradient goes to `source` of the same shape."""
    passed: Tensor = _StraightThrough.apply(value, source)
    return passed
