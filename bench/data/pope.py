"""POPE's question files (Li et al. 2023): JSON lines of a question about one image, with the answer yes or no."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.data.discover import image_folder, one_file
from bench.data.files import existing_folder, field, identifier, read_lines, refuse_twice
from bench.data.reader import Reader, Row, existing
from bench.data.settings import COUNT, PATH, TEXT, TEXTS, Setting
from bench.errors import UsageError
from bench.trust.places import inside
from tasks.base import Dataset, Sample
from tasks.metrics.yes_no import NO, YES


def pope(
    name: str,
    root: Path,
    *,
    questions: str,
    images: str,
    max_new_tokens: int,
    prompt_suffix: str = "",
    answer_words: Sequence[str] = (YES, NO),
) -> Dataset:
    """POPE's official format: a JSON object per line with ``question_id``, ``image``, ``text`` and ``label``.

    Args:
        name: of the dataset.
        root: the folder that the paths are relative to.
        questions: ``coco_pope_random.json`` or one of its siblings.
        images: folder of the images, for POPE COCO's val2014.
        max_new_tokens: limit of an answer.
        prompt_suffix: appended to every question by the task.
        answer_words: how yes and no are spelled where a model is led to say them.

    Raises:
        UsageError: a file is missing or damaged, a question comes twice, or its answer is neither yes nor no.
    """
    if len(answer_words) != 2:
        raise UsageError(f"dataset {name!r}: answer_words must be how yes and no are spelled, not {answer_words!r}")
    path, base = root / questions, existing_folder(root / images, f"images of dataset {name!r}")
    entries = _lines(path)
    refuse_twice([identifier(entry, "question_id", path) for entry in entries], "question_id", path)
    samples = tuple(_sample(entry, base, path) for entry in entries)
    yes, no = answer_words
    return Dataset(name, samples, prompt_suffix=prompt_suffix, max_new_tokens=max_new_tokens, answer_words=(yes, no))


def _lines(path: Path) -> list[dict[str, Any]]:
    found = []
    for number, line in enumerate(read_lines(path, "POPE's questions"), start=1):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            raise UsageError(f"{path}, line {number} is not JSON; POPE's files hold one JSON object a line") from None
        if not isinstance(entry, dict):
            raise UsageError(f"{path}, line {number} is not a JSON object; is it the official file, and whole?")
        found.append(entry)
    return found


def _sample(entry: dict[str, Any], base: Path, path: Path) -> Sample:
    where = f"{path}, question_id {entry['question_id']}"
    image, text = field(entry, "image", str, where), field(entry, "text", str, where)
    label = field(entry, "label", str, where).strip().casefold()
    if label not in (YES, NO):
        raise UsageError(f"{where}: label is {label!r}; it must be yes or no")
    return Sample(str(entry["question_id"]), inside(base, image, f"{where}: image"), text, (label,), image)


def _find(root: Path, place: Path, given: Row) -> dict[str, Any]:
    base = existing(root, place)
    found = {} if "questions" in given else {"questions": one_file(base, place, "*pope*.json*", "questions")}
    return found if "images" in given else {**found, "images": str(place / image_folder(base))}


POPE = Reader(
    about="POPE's question file (JSON lines) and a folder of images",
    settings={
        "questions": Setting(PATH, required=True),
        "images": Setting(PATH, required=True),
        "max_new_tokens": Setting(COUNT, required=True),
        "prompt_suffix": Setting(TEXT),
        "answer_words": Setting(TEXTS),
    },
    read=pope,
    tasks=lambda row: ("pope",),
    find=_find,
)
