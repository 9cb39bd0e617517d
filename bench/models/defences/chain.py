"""Several defences in a row around a victim, and the victim as an attacker meets it: with draws and gradients."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor

from attacks.objective import Classification, Objective, Progress, TargetedClassification
from bench.errors import UsageError
from bench.models.defences.base import ClassifierDefence, Defence, ImageDefence, See
from bench.models.defences.draws import NOTHING_DRAWN, Draws
from tasks.base import Answer, ImageTextEncoder, Sample, Task, TextClassifier, Victim

Gradient = Literal["own", "surrogate"]


@dataclass(frozen=True)
class Chain:
    """Defences in the order in which an image meets them."""

    defences: tuple[Defence, ...]

    def __post_init__(self) -> None:
        for one in self.defences[:-1]:
            if isinstance(one, ClassifierDefence):
                raise UsageError(f"defence {type(one).__name__.lower()!r} answers with classes: name it last")

    @property
    def classifies(self) -> bool:
        """Whether the last tells classes apart in a way of its own."""
        return bool(self.defences) and isinstance(self.defences[-1], ClassifierDefence)

    @property
    def randomised(self) -> bool:
        """Whether any draws."""
        return any(one.randomised for one in self.defences)

    @property
    def own_gradient(self) -> bool:
        """Whether the gradient of each is that of its stand-in already, so that BPDA adds nothing."""
        return all(one.own_gradient for one in self.defences)

    @property
    def needs_original(self) -> bool:
        """Whether any looks with the encoder that the model's own was fine-tuned from."""
        return any(one.needs_original for one in self.defences)

    def options(self) -> list[dict[str, Any]]:
        """What each does, defaults included, as JSON data."""
        return [asdict(cast(Any, one)) if is_dataclass(one) else {} for one in self.defences]

    def embed(self, images: Tensor, see: See, draws: Draws, gradient: Gradient) -> Tensor:
        """Embeddings (B, D) of the defended encoder, all defences nested: the first one stands outermost."""
        for place, one in reversed(list(enumerate(self.defences))):
            see = replace(see, look=self._layer(one, see, draws.of_part(place), gradient))
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

    def classify(
        self, images: Tensor, see: See, classnames: tuple[str, ...], draws: Draws, gradient: Gradient
    ) -> Tensor:
        """Logits (B, K) of the last defence, of images that those before it have purified."""
        *before, last = self.defences
        assert isinstance(last, ClassifierDefence), "asked of chains that classify"
        act = last.logits if gradient == "own" else last.logits_surrogate
        shown = Chain(tuple(before)).purify(images, see, draws, gradient)
        return act(shown, see, classnames, draws.of_part(len(before)))


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

    def __getattr__(self, name: str) -> Any:
        if name == "text":  # not there yet, while being copied
            raise AttributeError(name)
        return getattr(self.text, name)


@dataclass(frozen=True)
class DefendedEncoder:
    """An encoder behind defences, with one draw of their random numbers for each image."""

    encoder: ImageTextEncoder
    chain: Chain
    draws: Draws
    gradient: Gradient
    see: See

    @property
    def text(self) -> TextClassifier:
        """The text tower."""
        return self.see.text or self.encoder.text

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D)."""
        found = self.chain.embed(images, self.see, self.draws, self.gradient)
        return attached(found, images)

    def patch_tokens(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, N, W), of the purified images."""
        shown = self.chain.purify(images, self.see, self.draws, self.gradient)
        return attached(self.encoder.patch_tokens(shown), images)


@dataclass(frozen=True)
class DefendedClassifier(DefendedEncoder):
    """The same where the last defence tells classes apart in a way of its own."""

    def class_logits(self, images: Tensor, classnames: Sequence[str]) -> Tensor:
        """(B, 3, H, W) -> (B, K)."""
        found = self.chain.classify(images, self.see, tuple(classnames), self.draws, self.gradient)
        return attached(found, images)


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
        see: what the innermost defence looks with; its text tower is None where a vision-language model is asked.
    """

    chain: Chain
    task: Task
    encoder: ImageTextEncoder
    undefended: Victim
    see: See

    @classmethod
    def around(
        cls,
        victim: Victim,
        task: Task,
        encoder: ImageTextEncoder,
        chain: Chain,
        original: ImageTextEncoder | None = None,
    ) -> "Defended":
        """A bound victim with defences put around it.

        Args:
            victim: bound to the task.
            task: that it is bound to.
            encoder: what it sees with.
            chain: the defences.
            original: what the encoder was fine-tuned from, if it was and a defence asks for it.
        """
        text = _Remembered(encoder.text) if task.model == "encoder" else None
        return cls(chain, task, encoder, victim, See(encoder, text, original))

    @property
    def randomised(self) -> bool:
        """Whether its answers change from draw to draw."""
        return self.chain.randomised

    def drawn(self, draws: Draws, gradient: Gradient = "own") -> Victim:
        """The victim with one draw for each of the images that it will be asked about, in their order."""
        if self.see.text is not None:
            return self.task.bind(self.view(draws, gradient))
        return _Purified(self.undefended, lambda images: self.chain.purify(images, self.see, draws, gradient))

    def view(self, draws: Draws, gradient: Gradient = "own") -> DefendedEncoder:
        """The encoder as `drawn` has it."""
        kind = DefendedClassifier if self.chain.classifies else DefendedEncoder
        return kind(self.encoder, self.chain, draws, gradient, self.see)

    def predict(self, images: Tensor, samples: Sequence[Sample]) -> list[Answer]:
        """Answers of a victim that draws nothing."""
        return self.drawn(NOTHING_DRAWN).predict(images, samples)

    def objective(self, images: Tensor, samples: Sequence[Sample], goal: str) -> Objective:
        """What is ascended where a victim draws nothing."""
        return self.drawn(NOTHING_DRAWN).objective(images, samples, goal)
