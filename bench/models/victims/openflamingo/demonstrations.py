"""Examples that OpenFlamingo is shown before a question, as a JSON file of its own."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from bench.data.images import open_image
from bench.errors import UsageError
from bench.models.victims.openflamingo.prompts import Demonstrations
from bench.trust.places import inside
from tasks.base import Sample

NO_IMAGE = Path()  # of an example that is text alone


def read_demonstrations(path: Path, seed: int) -> dict[str, Demonstrations]:
    """Demonstrations by task.

    Args:
        path: a JSON object of tasks, each with a list of ``{"question": ..., "answer": ..., "image": ...}``. An image
            is a file in the folder of the JSON file or below; it may be left out where only texts are shown.
        seed: of the draws.

    Raises:
        UsageError: the file is no JSON of that form.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {
            task: Demonstrations([_sample(number, row, path) for number, row in enumerate(rows)], seed)
            for task, rows in content.items()
        }
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path} holds no demonstrations ({error}); it must be a JSON object of tasks, each with a list of "
            '{"question": ..., "answer": ...}'
        ) from error


def _sample(number: int, row: Mapping[str, str], path: Path) -> Sample:
    question, answer, image = row["question"], row["answer"], row.get("image", "")
    if not all(isinstance(text, str) for text in (question, answer, image)):
        raise TypeError(f"question, answer and image must be text, not {row!r}")
    name = f"demonstration {number}"
    place = inside(path.parent, image, f"{path}: image of {name}") if image else NO_IMAGE
    return Sample(name, place, question, (answer,), "")


def picture(sample: Sample) -> Image.Image:
    """The image of an example.

    Raises:
        UsageError: it has none, or it cannot be opened.
    """
    if sample.image == NO_IMAGE:
        raise UsageError(
            f'{sample.id} has no image, and --shots shows images: give each example an "image" in demonstrations.json, '
            "or leave --shots out"
        )
    return open_image(sample.image)


def digest_of(shown: Mapping[str, Demonstrations], *, images: bool) -> str:
    """SHA-256 of what can be shown, with the images' pixels where they are."""
    texts = {task: [(s.prompt, s.references) for s in found.samples] for task, found in shown.items()}
    total = hashlib.sha256(repr(sorted(texts.items())).encode())
    for _, found in sorted(shown.items()) if images else ():
        for sample in found.samples:
            total.update(picture(sample).tobytes())
    return total.hexdigest()
