"""Questions about images in VQAv2's two files, which TextVQA, VizWiz and OK-VQA come in too."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.data.annotators import annotator_notes
from bench.data.discover import image_folder, one_file
from bench.data.files import existing_folder, field, identifier, listing, read_json, refuse_twice
from bench.data.reader import Reader, Row, existing
from bench.data.settings import COUNT, PATH, TEXT, Setting
from bench.errors import UsageError
from bench.trust.places import inside
from tasks.base import Dataset, Sample

_IMAGE_TYPES = (".jpg", ".jpeg", ".png", ".webp")  # of two files with one stem the first of these counts
_DIGITS = 12  # in the names of COCO's files


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
        name: of the dataset.
        root: the folder that the paths are relative to.
        questions: JSON file of questions.
        annotations: JSON file of answers; it may hold further questions' too.
        images: folder of the images. An ``image_id`` is looked for as COCO names files (any prefix and 12 digits), as
            a file name (VizWiz), and as a file name without its type (TextVQA).
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
    refuse_twice([identifier(q, "question_id", asked_at) for q in asked], "question_id", asked_at)
    refuse_twice([identifier(a, "question_id", answered_at) for a in answered], "question_id", answered_at)
    annotation_of = {str(a["question_id"]): a for a in answered}
    files = _ImageNames(existing_folder(root / images, f"images of dataset {name!r}"))
    samples = []
    for entry in asked:
        question_id, image_id = str(entry["question_id"]), identifier(entry, "image_id", asked_at)
        if question_id not in annotation_of:
            raise UsageError(
                f"{answered_at} has no annotation for question_id {question_id} of {asked_at}; "
                "use the two files of the same release and split"
            )
        answers = _answers(annotation_of[question_id], image_id, answered_at)
        where = f"{asked_at}, question_id {question_id}"
        prompt = field(entry, "question", str, where)
        samples.append(Sample(question_id, files.of(image_id, f"{where}: image_id"), prompt, answers, image_id))
    notes = annotator_notes(samples)
    return Dataset(name, tuple(samples), prompt_suffix=prompt_suffix, max_new_tokens=max_new_tokens, notes=notes)


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


class _ImageNames:
    """The images of a folder by what an ``image_id`` may say of them."""

    def __init__(self, base: Path) -> None:
        self.base = base
        names = [path.name for path in listing(base) if path.suffix.lower() in _IMAGE_TYPES]
        names.sort(key=lambda n: _IMAGE_TYPES.index(Path(n).suffix.lower()))
        self.names = set(names)
        self.by_stem, self.by_number = dict[str, str](), dict[int, str]()
        for name in names:
            stem = Path(name).stem
            self.by_stem.setdefault(stem, name)
            if (digits := stem[-_DIGITS:]).isdecimal() and len(digits) == _DIGITS:
                self.by_number.setdefault(int(digits), name)

    def of(self, image_id: str, where: str) -> Path:
        """An image's file; of one that is absent the official name, which `open_image` will miss.

        Raises:
            UsageError: the id is the name of a file outside the folder; ``where`` says where it stands.
        """
        if image_id in self.names:
            return self.base / image_id
        name = self.by_stem.get(image_id)
        if name is None and image_id.isdecimal() and len(image_id) <= _DIGITS:
            name = self.by_number.get(int(image_id), f"COCO_{self.base.resolve().name}_{int(image_id):0{_DIGITS}d}.jpg")
        if name is None:
            name = image_id if Path(image_id).suffix.lower() in _IMAGE_TYPES else f"{image_id}.jpg"
        return inside(self.base, name, where)


def _find(root: Path, place: Path, given: Row) -> dict[str, Any]:
    base = existing(root, place)
    files = [key for key in ("questions", "annotations") if key not in given]
    found = {key: one_file(base, place, f"*{key}*.json", key) for key in files}
    return found if "images" in given else {**found, "images": str(place / image_folder(base))}


VQA = Reader(
    about="VQAv2's two JSON files and a folder of images, as TextVQA, VizWiz and OK-VQA come too",
    settings={
        "annotations": Setting(PATH, required=True),
        "questions": Setting(PATH, required=True),
        "images": Setting(PATH, required=True),
        "max_new_tokens": Setting(COUNT, required=True),
        "prompt_suffix": Setting(TEXT),
    },
    read=vqa,
    tasks=lambda row: ("vqa",),
    find=_find,
)
