"""CLIPure-Cos: the embedding, not the image, is purified."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from bench.errors import UsageError
from bench.models.defences.base import Defence, See, with_gradient_of
from bench.models.defences.draws import Draws

TEMPLATE = "a photo of a {c}"  # with no class in it


@dataclass(frozen=True)
class CLIPure(Defence):
    """CLIPure-Cos (Zhang et al., ICLR 2025) by its published description: steps towards the embedding of no class.

    A step is ``u <- normalize(u - 30 g / |g|)``, with g the gradient of the negative cosine to a text without a class.
    At a length of 30 a step turns by about 88 degrees, and the next one turns back: ten steps on one image are the
    identity, while the gradient through them is rounding noise. The released code takes |g| over the whole batch, so
    that an answer depends on its neighbours; ``norm=batch`` is that.

    Attributes:
        steps: of purification.
        step: length of one.
        norm: "row", or "batch" as released.
    """

    steps: int = 10
    step: float = 30.0
    norm: Literal["row", "batch"] = "row"

    about: ClassVar[str] = (
        "CLIPure-Cos (ICLR 2025), for zero-shot; options steps, step, norm: row, or batch as released"
    )

    def __post_init__(self) -> None:
        if self.norm not in ("row", "batch") or self.steps < 0:
            raise UsageError(f"clipure: norm must be row or batch and steps at least 0, not {self.norm}, {self.steps}")

    def embed(self, images: Tensor, see: See, draws: Draws) -> Tensor:
        """Purified unit embeddings (B, D)."""
        if see.text is None:
            raise UsageError("defence 'clipure' works on embeddings: it stands before an encoder, not a language model")
        text = see.text.classifier([""], [TEMPLATE])[:, 0]
        return purified(normalize(see(images), dim=-1), text, self.steps, self.step, self.norm)

    def surrogate(self, images: Tensor, see: See, draws: Draws) -> Tensor:
        """The same numbers with the gradient of the unit embeddings before purification."""
        unit = normalize(see(images), dim=-1)
        with torch.no_grad():
            defended = self.embed(images.detach(), see, draws)
        return with_gradient_of(defended, unit)


def purified(u: Tensor, text: Tensor, steps: int, length: float, norm: str) -> Tensor:
    """Unit embeddings (B, D) after so many steps towards a unit text embedding (D,); updates carry no gradient."""
    for _ in range(steps):
        gradient = ((u @ text)[:, None] * u - text).detach()
        size = gradient.norm() if norm == "batch" else gradient.norm(dim=-1, keepdim=True)
        u = normalize(u - length * gradient / size.clamp_min(1e-12), dim=-1)
    return u
