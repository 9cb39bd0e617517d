"""OpenFlamingo as a victim: tasks' questions in its own prompts, with two demonstrations of the same task before each.

Demonstrations are shown without their images ("0-shot" in the paper). Answers are greedy.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import torch
from PIL import Image
from torch import Tensor, nn

from bench.errors import UsageError
from bench.models.encoders.encoder import Encoder
from bench.models.encoders.load import digest
from bench.models.victims import memory as room
from bench.models.victims.openflamingo.answers import PreparedAnswers
from bench.models.victims.openflamingo.family import Place
from bench.models.victims.openflamingo.memory import estimate, shapes
from bench.models.victims.openflamingo.model import OpenFlamingo, load_openflamingo
from bench.models.victims.openflamingo.prompts import CAPTION, VQA, Asker, Demonstrations, Prompt, Style
from tasks import base
from tasks.base import Answer, Sample

CAPTIONING, QUESTIONS = "captioning", "vqa"  # tasks; what is no caption is a question
STYLES: Mapping[str, Style] = {CAPTIONING: CAPTION}


def load(place: Place, encoder: Encoder, settings: Mapping[str, str], device: torch.device) -> "OpenFlamingoVictim":
    """Load an OpenFlamingo around ``encoder``; the victim goes to ``device``.

    Raises:
        UsageError: a part cannot be read, or there are no demonstrations.
    """
    if place.demonstrations is None:
        raise UsageError(
            f"{place.checkpoint.parent} has no demonstrations.json: questions with answers of a training split, as "
            '{"captioning": [{"question": "", "answer": "a dog"}, ...], "vqa": [...]}; OpenFlamingo is asked after two '
            "of them"
        )
    seed = settings.get("demonstrations_seed", "0")
    if not seed.isdecimal():
        raise UsageError(f"demonstrations_seed must be a whole number, not {seed!r}")
    shown = read_demonstrations(place.demonstrations, int(seed))
    model = load_openflamingo(str(place.checkpoint), place.language, encoder, every=place.every)
    return OpenFlamingoVictim(model.to(device), shown, settings)


def read_demonstrations(path: Path, seed: int) -> dict[str, Demonstrations]:
    """Demonstrations by task.

    Raises:
        UsageError: the file is no JSON of that form.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {task: Demonstrations([_sample(n, row) for n, row in enumerate(rows)], seed)
                for task, rows in content.items()}  # fmt: skip
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path} holds no demonstrations ({error}); it must be a JSON object of tasks, each with a list of "
            '{"question": ..., "answer": ...}'
        ) from error


def _sample(number: int, row: Mapping[str, str]) -> Sample:
    question, answer = row["question"], row["answer"]
    if not isinstance(question, str) or not isinstance(answer, str):
        raise TypeError(f"question and answer must be text, not {row!r}")
    return Sample(f"demonstration {number}", Path(), question, (answer,), "")


class OpenFlamingoVictim(nn.Module):
    """See `bench.models.victims.loaded.LoadedVictim`.

    Args:
        model: the network.
        demonstrations: by task; other tasks than these get those of "vqa".
        settings: that were chosen, for the header.
    """

    settings: Mapping[str, str]

    def __init__(
        self, model: OpenFlamingo, demonstrations: Mapping[str, Demonstrations], settings: Mapping[str, str]
    ) -> None:
        super().__init__()
        self.model, self.demonstrations, self.settings = model, demonstrations, dict(settings)

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
        return type(self)(self.model.at(precision), self.demonstrations, self.settings)

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
        """Greedy answers."""
        return self.model.generate(images, [self.prompt(asked) for asked in prompts], max_new_tokens=max_new_tokens)

    def prompt(self, asked: str) -> Prompt:
        """A task's prompt after two demonstrations; a plain text is a question.

        The dataset's suffix, which tells other models how to answer, is left out: demonstrations show it.

        Raises:
            UsageError: there are none for this task.
        """
        if not isinstance(asked, base.Prompt):
            asked = base.Prompt.of(QUESTIONS, asked, asked)
        shown = self.demonstrations.get(asked.task)
        if shown is None and asked.task != CAPTIONING:
            shown = self.demonstrations.get(QUESTIONS)
        if shown is None:
            raise UsageError(f"there are no demonstrations for the task {asked.task!r}; add some")
        return Asker(STYLES.get(asked.task, VQA), shown, 0, _no_image).prompt(asked.sample_id, asked.question)

    def digests(self) -> dict[str, str]:
        """SHA-256 of perceiver, of the language model with its gated blocks, and of what can be shown."""
        shown = {task: [(s.prompt, s.references) for s in d.samples] for task, d in self.demonstrations.items()}
        return {
            "perceiver": digest(self.model.perceiver),
            "language": digest(self.model.lang_encoder),
            "demonstrations": hashlib.sha256(repr(sorted(shown.items())).encode()).hexdigest(),
        }

    def need(self, batch: int, *, checkpointing: bool) -> room.Need:
        """See `memory.estimate`."""
        return estimate(shapes(self.model), batch, checkpointing=checkpointing)

    def checkpoint_activations(self) -> None:
        """See `OpenFlamingo.checkpoint_activations`."""
        self.model.checkpoint_activations()

    def make_room(self, batch: int | None) -> str:
        """See `bench.models.victims.memory.make_room`."""
        return room.make_room(self, batch, self.device)


def _no_image(sample: Sample) -> Tensor:
    raise UsageError(f"{sample.id} has no image; demonstrations are text alone")
