"""Several defences in a row around a victim, and the victim as an attacker meets it: with draws and gradients."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor

from attacks.objective import Classification, Objective, Progress, TargetedClassification
from bench.errors import UsageError
from bench.models.defences.base import Defence, ImageDefence, See
from bench.models.defences.draws import NOTHING_DRAWN, Draws
from tasks.base import Answer, ImageTextEncoder, Sample, Task, TextClassifier, Victim

Gradient = Literal["own", "surrogate"]


@dataclass(frozen=True)
class Chain:
    """Defences in the order in which an image meets them."""

    defences: tuple[Defence, ...]

    @property
    def randomised(self) -> bool:
        """Whether any draws."""
        return any(one.randomised for one in self.defences)

    @property
    def own_gradient(self) -> bool:
        """Whether the gradient of each is that of its stand-in already, so that BPDA adds nothing."""
        return all(one.own_gradient for one in self.defences)

    def options(self) -> list[dict[str, Any]]:
        """What each does, defaults included, as JSON data."""
        return [asdict(cast(Any, one)) if is_dataclass(one) else {} for one in self.defences]

    def embed(self, images: Tensor, see: See, draws: Draws, gradient: Gradient) -> Tensor:
        """Embeddings (B, D) of the defended encoder, all defences nested: the first one stands outermost."""
        for place, one in reversed(list(enumerate(self.defences))):
            see = See(self._layer(one, see, draws.of_part(place), gradient), see.text)
        return see(images)

    def _layer(self, one: Defence, inner: See, draws: Draws, gradient: Gradient) -> Callable[[Tensor], Tensor]:
        act = one.embed if gradient == "own" else one.surrogate
        return lambda images: act(images, inner, draws)

    def check_images(self) -> None:
        """Refuse defences that do not work on images: nothing else stands before a vision-language model.

        Raises:
            UsageError: names the first one.
        """
        for one in self.defences:
            if not isinstance(one, ImageDefence):
                raise UsageError(
                    f"defence {type(one).__name__.lower()!r} works on the embeddings of an encoder; before a vision-"
                    "language model, and for attacks on patch tokens, choose one of images, such as ttc or jpeg"
                )

    def purify(self, images: Tensor, see: See, draws: Draws, gradient: Gradient) -> Tensor:
        """Images that a defended victim is shown; each defence looks with the undefended encoder.

        Raises:
            UsageError: as of `check_images`.
        """
        self.check_images()
        for place, one in enumerate(self.defences):
            assert isinstance(one, ImageDefence), "checked"
            act = one.purify if gradient == "own" else one.purify_surrogate
            images = act(images, see, draws.of_part(place))
        return images


class _Remembered:
    """A text tower that embeds each set of classes once."""

    def __init__(self, text: TextClassifier) -> None:
        self.text = text
        self.known: dict[tuple[tuple[str, ...], tuple[str, ...]], Tensor] = {}

    @property
    def scale(self) -> float | Tensor:
        return self.text.scale

    def embed(self, texts: Sequence[str]) -> Tensor:
        return self.text.embed(texts)

    def classifier(self, classnames: Sequence[str], templates: Sequence[str]) -> Tensor:
        key = tuple(classnames), tuple(templates)
        if key not in self.known:
            self.known[key] = self.text.classifier(classnames, templates)
        return self.known[key]


@dataclass(frozen=True)
class DefendedEncoder:
    """An encoder behind defences, with one draw of their random numbers for each image."""

    encoder: ImageTextEncoder
    chain: Chain
    draws: Draws
    gradient: Gradient
    remembered: TextClassifier | None

    @property
    def text(self) -> TextClassifier:
        """The text tower."""
        return self.remembered or self.encoder.text

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D)."""
        found = self.chain.embed(images, self._see, self.draws, self.gradient)
        return attached(found, images)

    def patch_tokens(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, N, W), of the purified images."""
        shown = self.chain.purify(images, self._see, self.draws, self.gradient)
        return attached(self.encoder.patch_tokens(shown), images)

    @property
    def _see(self) -> See:
        return See(self.encoder, self.remembered)


def attached(found: Tensor, images: Tensor) -> Tensor:
    """What was computed of images; where a defence has cut the gradient, with a gradient of zero instead of none."""
    if not images.requires_grad or found.requires_grad or not torch.is_grad_enabled():
        return found
    nothing = (0 * images).flatten(1).sum(1)
    return found + nothing.view(-1, *[1] * (found.ndim - 1))


class _Purified:
    """A victim that is shown purified images."""

    def __init__(self, victim: Victim, purify: Callable[[Tensor], Tensor]) -> None:
        self.victim, self.purify = victim, purify

    def predict(self, images: Tensor, samples: Sequence[Sample]) -> list[Answer]:
        with torch.no_grad():
            shown = self.purify(images)
        return self.victim.predict(shown, samples)

    def objective(self, images: Tensor, samples: Sequence[Sample], goal: str) -> Objective:
        inner = self.victim.objective(images, samples, goal)
        if isinstance(inner, Classification | TargetedClassification):
            return replace(inner, model=lambda shown: inner.model(self.purify(shown)))

        def through(images: Tensor, rows: Tensor) -> Progress:
            return inner(attached(self.purify(images), images), rows)

        return through


@dataclass(frozen=True)
class Defended:
    """A victim behind defences.

    Attributes:
        chain: the defences.
        task: that it is bound to.
        encoder: the encoder, or that of the model.
        undefended: the victim without its defences.
        text: the text tower of the encoder; None where the task asks a vision-language model.
    """

    chain: Chain
    task: Task
    encoder: ImageTextEncoder
    undefended: Victim
    text: TextClassifier | None

    @classmethod
    def around(cls, victim: Victim, task: Task, encoder: ImageTextEncoder, chain: Chain) -> "Defended":
        """A bound victim with defences put around it; ``encoder`` is what it sees with."""
        return cls(chain, task, encoder, victim, _Remembered(encoder.text) if task.model == "encoder" else None)

    @property
    def randomised(self) -> bool:
        """Whether its answers change from draw to draw."""
        return self.chain.randomised

    def drawn(self, draws: Draws, gradient: Gradient = "own") -> Victim:
        """The victim with one draw for each of the images that it will be asked about, in their order."""
        if self.text is not None:
            return self.task.bind(self.view(draws, gradient))
        see = See(self.encoder)
        return _Purified(self.undefended, lambda images: self.chain.purify(images, see, draws, gradient))

    def view(self, draws: Draws, gradient: Gradient = "own") -> DefendedEncoder:
        """The encoder as `drawn` has it."""
        return DefendedEncoder(self.encoder, self.chain, draws, gradient, self.text)

    def predict(self, images: Tensor, samples: Sequence[Sample]) -> list[Answer]:
        """Answers of a victim that draws nothing."""
        return self.drawn(NOTHING_DRAWN).predict(images, samples)

    def objective(self, images: Tensor, samples: Sequence[Sample], goal: str) -> Objective:
        """What is ascended where a victim draws nothing."""
        return self.drawn(NOTHING_DRAWN).objective(images, samples, goal)
