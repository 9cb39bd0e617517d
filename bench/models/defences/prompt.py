"""A prompt whose first words are numbers: what test-time prompt tuning changes."""

from dataclasses import dataclass
from typing import Protocol, cast

from torch import Tensor

from bench.errors import UsageError
from tasks.base import TextClassifier

CONTEXT = "a photo of a"


class TunableText(TextClassifier, Protocol):
    """A text tower that takes embeddings in the place of words."""

    def context(self, text: str) -> Tensor:
        """(C, W): what its words are embedded as."""

    def embed_with(self, texts: tuple[str, ...], context: Tensor) -> Tensor:
        """Unit embeddings (K, D) of texts whose first C tokens after the start are (C, W) given numbers."""


@dataclass(frozen=True)
class Prompt:
    """The text "a photo of a NAME." of each of K classes, with its first words as numbers.

    Attributes:
        text: the text tower.
        texts: K.
        context: (C, W), the embedded words that tuning begins at.
    """

    text: TunableText
    texts: tuple[str, ...]
    context: Tensor

    @classmethod
    def of(cls, text: TextClassifier | None, classnames: tuple[str, ...], defence: str) -> "Prompt":
        """The prompt as it is before it is tuned.

        Raises:
            UsageError: there is no text tower, or not one that takes numbers.
        """
        if text is None or not hasattr(text, "embed_with"):
            raise UsageError(f"defence {defence!r} tunes prompts: it stands before zero-shot classification by a CLIP")
        tunable = cast(TunableText, text)
        return cls(tunable, tuple(f"{CONTEXT} {name}." for name in classnames), tunable.context(CONTEXT))

    def weights(self, context: Tensor) -> Tensor:
        """Class weights (D, K), unit columns, with a gradient to the context (C, W)."""
        return self.text.embed_with(self.texts, context).T
