"""OpenFlamingo as a victim: tasks' questions in its own prompts, with examples of the same task before each.

Without shots two examples are shown without their images ("0-shot" in the paper); else so many, with their images.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, Self

import torch
from PIL import Image
from torch import Tensor, nn

from bench.errors import UsageError
from bench.models.encoders.encoder import Encoder
from bench.models.encoders.load import digest
from bench.models.victims import memory as room
from bench.models.victims.openflamingo.answers import PreparedAnswers
from bench.models.victims.openflamingo.choices import Choices
from bench.models.victims.openflamingo.demonstrations import digest_of, picture, read_demonstrations
from bench.models.victims.openflamingo.family import Place
from bench.models.victims.openflamingo.memory import Text, estimate, shapes
from bench.models.victims.openflamingo.model import OpenFlamingo, load_openflamingo
from bench.models.victims.openflamingo.prompts import CAPTION, VQA, Asker, Demonstrations, Prompt, Style
from tasks import base
from tasks.base import Answer, Sample

CAPTIONING, QUESTIONS = "captioning", "vqa"  # tasks; what is no caption is a question
STYLES: Mapping[str, Style] = {CAPTIONING: CAPTION}


def load(place: Place, encoder: Encoder, settings: Mapping[str, str], device: torch.device) -> "OpenFlamingoVictim":
    """Load an OpenFlamingo around ``encoder``; the victim goes to ``device``.

    Raises:
        UsageError: a part cannot be read, or a setting is no number of its kind.
    """
    choices = Choices.of(settings)
    shown = {} if place.demonstrations is None else read_demonstrations(place.demonstrations, choices.seed)
    model = load_openflamingo(str(place.checkpoint), place.language, encoder, every=place.every)
    return OpenFlamingoVictim(model.to(device), shown, choices, settings)


class OpenFlamingoVictim(nn.Module):
    """See `bench.models.victims.loaded.LoadedVictim`.

    Args:
        model: the network.
        demonstrations: by task; other tasks than these get those of "vqa", but captions do not.
        choices: how many are shown, and how answers are decoded.
        settings: the same as texts, for the header.
    """

    settings: Mapping[str, str]

    def __init__(
        self,
        model: OpenFlamingo,
        demonstrations: Mapping[str, Demonstrations],
        choices: Choices,
        settings: Mapping[str, str],
    ) -> None:
        super().__init__()
        self.model, self.demonstrations = model, dict(demonstrations)
        self.choices, self.settings = choices, dict(settings)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.model.device

    @property
    def encoder(self) -> Encoder:
        """What it sees with."""
        return self.model.encoder

    def at(self, precision: str) -> Self:
        """See `OpenFlamingo.at`."""
        return type(self)(self.model.at(precision), self.demonstrations, self.choices, self.settings)

    def wants_examples(self, task: str) -> Literal["texts", "images"] | None:
        """See `bench.models.victims.loaded.ShowsExamples`."""
        if self._shown(task) is not None:
            return None
        return "images" if self.choices.shots else "texts"

    def show(self, task: str, samples: Sequence[Sample]) -> None:
        """See `bench.models.victims.loaded.ShowsExamples`; the published pool of the samples is drawn from."""
        self.demonstrations[task] = Demonstrations.of(samples, self.choices.seed)

    def _shown(self, task: str) -> Demonstrations | None:
        found = self.demonstrations.get(task)
        return self.demonstrations.get(QUESTIONS) if found is None and task != CAPTIONING else found

    def preprocess(self, image: Image.Image) -> Tensor:
        """See `OpenFlamingo.preprocess`."""
        return self.model.preprocess(image)

    def token_texts(self) -> list[str | None]:
        """See `OpenFlamingo.token_texts`."""
        return self.model.token_texts()

    def answers(self, prompts: Sequence[str], answers: Sequence[str]) -> PreparedAnswers:
        """See `OpenFlamingo.answers`; an answer's colons are kept."""
        return self.model.answers([self.prompt(asked) for asked in prompts], answers)

    def generate(self, images: Tensor, prompts: Sequence[str], *, max_new_tokens: int) -> list[Answer]:
        """Answers by greedy decoding or beam search, all of one kind of question."""
        asked = [self.prompt(one) for one in prompts]
        decoding = self.choices.decoding(_style(_task_of(prompts[0])))
        return self.model.generate(images, asked, max_new_tokens=max_new_tokens, decoding=decoding)

    def prompt(self, asked: str) -> Prompt:
        """A task's prompt after its examples; a plain text is a question.

        The dataset's suffix, which tells other models how to answer, is left out: examples show it.

        Raises:
            UsageError: there are no examples for this task, too few, or one lacks the image that is to be shown.
        """
        task = _task_of(asked)
        if (shown := self._shown(task)) is None:
            raise UsageError(f"there are no demonstrations for the task {task!r}; add some")
        asker = Asker(_style(task), shown, self.choices.shots, self._example)
        if isinstance(asked, base.Prompt):
            return asker.prompt(asked.sample_id, asked.question)
        return asker.prompt(asked, asked)

    def _example(self, sample: Sample) -> Tensor:
        """The pixels of an example."""
        return self.model.preprocess(picture(sample))

    def digests(self) -> dict[str, str]:
        """SHA-256 of perceiver, of the language model with its gated blocks, and of what can be shown."""
        return {
            "perceiver": digest(self.model.perceiver),
            "language": digest(self.model.lang_encoder),
            "demonstrations": digest_of(self.demonstrations, images=bool(self.choices.shots)),
        }

    def need(self, batch: int, *, checkpointing: bool) -> room.Need:
        """See `memory.estimate`."""
        usual = Text()
        text = Text(prefix=max(usual.prefix, usual.rest * self.choices.shots))
        return estimate(shapes(self.model), batch, checkpointing=checkpointing, text=text)

    def checkpoint_activations(self) -> None:
        """See `OpenFlamingo.checkpoint_activations`."""
        self.model.checkpoint_activations()

    def make_room(self, batch: int | None) -> str:
        """See `bench.models.victims.memory.make_room`."""
        return room.make_room(self, batch, self.device)


def _task_of(asked: str) -> str:
    return asked.task if isinstance(asked, base.Prompt) else QUESTIONS


def _style(task: str) -> Style:
    return STYLES.get(task, VQA)
