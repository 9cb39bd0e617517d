"""ScienceQA's files (Lu et al. 2022): problems.json, pid_splits.json, and a folder of images per problem."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.data.files import check_text, existing_folder, field, identifier, read_json, refuse_twice
from bench.data.prompts import lettered
from bench.data.reader import Reader, Row, existing
from bench.data.settings import COUNT, PATH, SWITCH, TEXT, Setting
from bench.errors import UsageError
from bench.trust.places import inside
from tasks.base import Dataset, Sample
from tasks.metrics.letters import LETTERS

SUBJECTS = {"natural science": "NAT", "social science": "SOC", "language science": "LAN"}  # as the official table
YOUNGER = 6  # the last grade of the younger half in the official table


def scienceqa(
    name: str,
    root: Path,
    *,
    problems: str,
    splits: str,
    images: str,
    max_new_tokens: int,
    split: str = "test",
    lecture: bool = False,
    hint: bool = True,
    prompt_suffix: str = "",
) -> Dataset:
    """The problems of a split that have an image (ScienceQA-IMG), in the order of the split.

    Args:
        name: of the dataset.
        root: the folder that the paths are relative to.
        problems: ``problems.json``, an object of problems by id.
        splits: ``pid_splits.json``, an object of lists of ids by split.
        images: folder that holds ``SPLIT/ID/image.png``.
        max_new_tokens: limit of an answer.
        split: "train", "val", "test", or one of the mini splits.
        lecture: whether the lecture stands before the question.
        hint: whether the hint (the context, without the image) does.
        prompt_suffix: appended to every question by the task.

    Raises:
        UsageError: a file is missing or damaged, the split is not in it, or a problem contradicts itself.
    """
    path, chosen_at = root / problems, root / splits
    entries, chosen = read_json(path, "ScienceQA's problems"), read_json(chosen_at, "ScienceQA's splits")
    if split not in chosen:
        raise UsageError(f"{chosen_at} has no split {split!r}; it has {', '.join(map(str, chosen))}")
    base = existing_folder(root / images, f"images of dataset {name!r}")
    folder = inside(base, split, "split") if (base / split).is_dir() else base
    samples = []
    keys = [identifier({"id": key}, "id", chosen_at) for key in field(chosen, split, list, str(chosen_at))]
    refuse_twice(keys, "problem", chosen_at)
    for key in keys:
        where = f"{path}, problem {key}"
        problem = field(entries, key, dict, str(path))
        if field(problem, "image", str | None, where):
            samples.append(_sample(key, problem, folder, where, lecture=lecture, hint=hint))
    if not samples:
        raise UsageError(f"{path}: no problem of split {split!r} has an image")
    return Dataset(name, tuple(samples), prompt_suffix=prompt_suffix, max_new_tokens=max_new_tokens)


def _sample(key: str, problem: Mapping[str, Any], folder: Path, where: str, *, lecture: bool, hint: bool) -> Sample:
    choices = tuple(field(problem, "choices", list, where))
    if not all(isinstance(choice, str) for choice in choices) or not 2 <= len(choices) <= len(LETTERS):
        raise UsageError(f"{where}: choices must be 2 to {len(LETTERS)} texts, not {choices!r}")
    for choice in choices:
        check_text(choice, f"{where}: choice")
    answer = field(problem, "answer", int, where)
    if not 0 <= answer < len(choices):
        raise UsageError(f"{where}: answer {answer} names none of its {len(choices)} choices, which count from 0")
    lines = [field(problem, "lecture", str, where)] if lecture and problem.get("lecture") else []
    lines += [field(problem, "hint", str, where)] if hint and problem.get("hint") else []
    lines += [field(problem, "question", str, where), *lettered(choices)]
    image = inside(folder, f"{key}/{field(problem, 'image', str, where)}", f"{where}: image")
    return Sample(
        key, image, "\n".join(lines), (choices[answer],), key, answer,
        choices=choices, categories=_categories(problem, where),
    )  # fmt: skip


def _categories(problem: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Those columns of the official table that a problem with an image counts in."""
    subject = str(field(problem, "subject", str, where))
    if subject not in SUBJECTS:
        raise UsageError(f"{where}: subject {subject!r} is not one of {', '.join(SUBJECTS)}")
    grade = str(field(problem, "grade", str, where)).removeprefix("grade")
    if not grade.isdecimal() or len(grade) > 2:
        raise UsageError(f"{where}: grade must be written grade1 to grade12, not {problem['grade']!r}")
    half = "G1-6" if int(grade) <= YOUNGER else "G7-12"
    return (SUBJECTS[subject], *(("TXT",) if problem.get("hint") else ()), "IMG", half)


def _find(root: Path, place: Path, given: Row) -> dict[str, Any]:
    existing(root, place)
    files = {"problems": "problems.json", "splits": "pid_splits.json", "images": "images"}
    return {key: str(place / name) for key, name in files.items() if key not in given}


SCIENCEQA = Reader(
    about="ScienceQA's problems.json, pid_splits.json and images",
    settings={
        "problems": Setting(PATH, required=True),
        "splits": Setting(PATH, required=True),
        "images": Setting(PATH, required=True),
        "max_new_tokens": Setting(COUNT, required=True),
        "split": Setting(TEXT),
        "lecture": Setting(SWITCH),
        "hint": Setting(SWITCH),
        "prompt_suffix": Setting(TEXT),
    },
    read=scienceqa,
    tasks=lambda row: ("scienceqa",),
    find=_find,
)
