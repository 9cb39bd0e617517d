"""Readers of official dataset file formats: a function each, its keyword arguments a suite row's keys."""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import registry
from bench.data import shards
from bench.data.files import existing_folder, field, read_json
from bench.errors import UsageError
from tasks.base import Dataset, Sample


def load(name: str, row: Mapping[str, object], root: Path) -> Dataset:
    """Read a data set from files, its samples in the order of the file.

    Args:
        name: of the data set.
        row: ``format``, and the keyword arguments of that format's reader; paths are relative to ``root``.
        root: the folder under which data sets lie.

    Raises:
        UsageError: an unknown format or key, or a file that is missing, damaged or contradicts itself.
    """
    settings = dict(row)
    format_name = str(settings.pop("format", ""))
    if format_name not in _READERS:
        raise registry.unknown(f"format of data set {name!r}", format_name, _READERS)
    reader = _READERS[format_name]
    try:
        inspect.signature(reader).bind(name, root, **settings)
    except TypeError as error:
        raise UsageError(f"data set {name!r}, format {format_name!r}: {error}; mend its row in the suite") from None
    existing_folder(root, f"the data root, in which data set {name!r} should lie")
    return reader(name, root, **settings)


def karpathy(
    name: str,
    root: Path,
    *,
    annotations: str,
    images: str,
    prompt: str,
    max_new_tokens: int = 20,
    targets: Sequence[str] | None = None,
) -> Dataset:
    """The test split of Karpathy's JSON for COCO and Flickr30k (Karpathy & Fei-Fei 2015).

    Args:
        name: of the data set.
        root: the folder that the paths are relative to.
        annotations: the JSON file.
        images: folder under which ``filepath/filename`` lies; Flickr30k has no ``filepath``.
        prompt: asked of every image.
        max_new_tokens: limit of a caption.
        targets: texts to make the model say, dealt out in turn; they take the place of the captions.

    Raises:
        UsageError: a file is missing or damaged, no image is in the test split, an image comes twice or has
            no caption, or ``targets`` is not a list of texts.
    """
    if targets is not None and (isinstance(targets, str) or not targets):
        raise UsageError(f"data set {name!r}: targets must be a list of texts, not {targets!r}; mend the suite's row")
    path = root / annotations
    entries = field(read_json(path, "Karpathy annotations"), "images", list, str(path))
    chosen = [entry for entry in entries if field(entry, "split", str, str(path)) == "test"]
    if not chosen:
        splits = ", ".join(sorted({entry["split"] for entry in entries})) or "none"
        raise UsageError(f"{path} has no image in split 'test' (splits: {splits}); use the official split file")
    base = existing_folder(root / images, f"images of data set {name!r}")
    samples = []
    for i, entry in enumerate(chosen):
        filename = field(entry, "filename", str, str(path))
        filepath = field({"filepath": None, **entry}, "filepath", str | None, str(path)) or ""
        image_id = Path(filename).stem if entry.get("cocoid") is None else str(entry["cocoid"])
        wanted = (targets[i % len(targets)],) if targets else _captions(entry, image_id, path)
        samples.append(Sample(image_id, base / filepath / filename, prompt, wanted, image_id))
    _unique([s.id for s in samples], "image id", path)
    return Dataset(name, tuple(samples), max_new_tokens=max_new_tokens)


def _captions(entry: Mapping[str, Any], image_id: str, path: Path) -> tuple[str, ...]:
    where = f"{path}, image {image_id}"
    captions = tuple(field(s, "raw", str, where) for s in field(entry, "sentences", list, where))
    if not captions:
        raise UsageError(f"{where} has no sentences to score against; use the official file, or remove the image")
    return captions


def vqa(
    name: str,
    root: Path,
    *,
    questions: str,
    annotations: str,
    images: str,
    max_new_tokens: int,
    prompt_suffix: str = "",
) -> Dataset:
    """VQAv2's questions and annotations (Goyal et al. 2017), joined by ``question_id``.

    Args:
        name: of the data set.
        root: the folder that the paths are relative to.
        questions: JSON file of questions.
        annotations: JSON file of answers; it may hold further questions' too.
        images: folder of ``COCO_<folder's name>_<12 digits>`` with .jpg or .png.
        max_new_tokens: limit of an answer.
        prompt_suffix: appended to every question by the task.

    Raises:
        UsageError: a file is missing or damaged, a question or annotation comes twice, a question has no
            annotation, no answers, or another image than its annotation.
    """
    asked_at, answered_at = root / questions, root / annotations
    asked = field(read_json(asked_at, "VQA questions"), "questions", list, str(asked_at))
    answered = field(read_json(answered_at, "VQA annotations"), "annotations", list, str(answered_at))
    if not asked:
        raise UsageError(f"{asked_at} holds no questions; use the official file")
    _unique([_id(q, "question_id", asked_at) for q in asked], "question_id", asked_at)
    _unique([_id(a, "question_id", answered_at) for a in answered], "question_id", answered_at)
    annotation_of = {str(a["question_id"]): a for a in answered}
    base = existing_folder(root / images, f"images of data set {name!r}")
    present = set(os.listdir(base))
    samples = []
    for entry in asked:
        question_id, image_id = str(entry["question_id"]), _id(entry, "image_id", asked_at)
        if question_id not in annotation_of:
            raise UsageError(
                f"{answered_at} has no annotation for question_id {question_id} of {asked_at}; "
                "use the two files of the same release and split"
            )
        answers = _answers(annotation_of[question_id], image_id, answered_at)
        image = base / _coco_name(base, image_id, present, asked_at)
        prompt = field(entry, "question", str, f"{asked_at}, question_id {question_id}")
        samples.append(Sample(question_id, image, prompt, answers, image_id))
    return Dataset(name, tuple(samples), prompt_suffix=prompt_suffix, max_new_tokens=max_new_tokens)


def _answers(annotation: Mapping[str, Any], image_id: str, path: Path) -> tuple[str, ...]:
    """The annotators' answers, in the order of the file."""
    where = f"{path}, question_id {annotation['question_id']}"
    if str(annotation.get("image_id", image_id)) != image_id:
        raise UsageError(
            f"{where} is about image {annotation['image_id']}, but its question about image {image_id}; "
            "use the two files of the same release and split"
        )
    answers = tuple(field(a, "answer", str, where) for a in field(annotation, "answers", list, where))
    if not answers:
        raise UsageError(f"{where} has no answers to score against; use a split with answers, or remove the question")
    return answers


def _coco_name(base: Path, image_id: str, present: set[str], path: Path) -> str:
    """File name of an image; of one that is absent the official name, which `open_image` will miss."""
    if not image_id.isdecimal():
        raise UsageError(f"{path}: image_id {image_id!r} is not a number; only COCO images are named by this format")
    stem = f"COCO_{base.name}_{int(image_id):012d}"
    return f"{stem}.png" if f"{stem}.png" in present and f"{stem}.jpg" not in present else f"{stem}.jpg"


def _id(entry: Any, key: str, path: Path) -> str:
    return str(field(entry, key, int | str, str(path)))


def _unique(ids: Sequence[str], what: str, path: Path) -> None:
    seen: set[str] = set()
    for one in ids:
        if one in seen:
            raise UsageError(f"{path}: {what} {one} comes twice; remove one of them, or download the file again")
        seen.add(one)


_READERS: Mapping[str, Callable[..., Dataset]] = {
    "karpathy": karpathy,
    "vqa": vqa,
    "webdataset": shards.webdataset,
}
