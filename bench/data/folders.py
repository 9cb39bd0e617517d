"""Classification sets as a folder of images for each class, as torchvision's ImageFolder has them."""

import os
from collections.abc import Sequence
from pathlib import Path

from bench.data.files import existing_folder, read_lines
from bench.data.reader import Reader, place_is
from bench.data.settings import PATH, PROMPTS, Setting
from bench.data.templates import IMAGENET, TEMPLATES, given_templates, imagenet_classnames, read_templates
from bench.errors import UsageError
from tasks.base import Dataset, Sample

CLASSNAMES = "classnames.txt"
IMAGE_TYPES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")


def imagefolder(
    name: str,
    root: Path,
    *,
    folder: str,
    classnames: str | None = None,
    templates: str | Sequence[str] | None = None,
) -> Dataset:
    """Images in one folder a class; the classes are the folders in alphabetical order.

    Args:
        name: of the dataset.
        root: the folder that the paths are relative to.
        folder: holds the classes' folders.
        classnames: a text file, by default ``folder``'s classnames.txt if there is one: a line a class, either
            "folder<TAB>name" or just the names in the folders' order; or "imagenet" for its 1000 names, in the order
            of the WordNet ids that its folders are called by. Without any, a folder's name is its class's.
        templates: see `bench.data.templates.given_templates`; by default ``folder``'s
            zeroshot_classification_templates.txt if there is one, else "a photo of a {c}.".

    Raises:
        UsageError: a folder or file is missing or damaged, the class names do not fit the folders, or there are no
            images.
    """
    base = existing_folder(root / folder, f"dataset {name!r}")
    classes = sorted(entry.name for entry in base.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    names = _names(classes, base, root, classnames)
    samples = []
    for label, each in enumerate(classes):
        for file in _images(base / each):
            key = file.relative_to(base).as_posix()
            samples.append(Sample(key, file, "", (names[label],), key, label))
    if not samples:
        raise UsageError(f"{base} holds no images in folders of classes; put a folder for each class there")
    return Dataset(name, tuple(samples), names, _prompts(base, templates, name), chance=100 / len(names))


def _names(classes: Sequence[str], base: Path, root: Path, given: str | None) -> tuple[str, ...]:
    if given == IMAGENET:
        names, where = list(imagenet_classnames()), "ImageNet"
    elif given is not None or (base / CLASSNAMES).is_file():
        path = base / CLASSNAMES if given is None else root / given
        names, where = read_lines(path, "class names"), str(path)
    else:
        return tuple(each.replace("_", " ") for each in classes)
    if all("\t" in line for line in names):
        return _by_folder(classes, dict(line.split("\t", 1) for line in names), base, where)
    if len(names) != len(classes):
        raise UsageError(
            f"{base} holds {len(classes)} classes' folders, but {where} has {len(names)} class names; "
            "use class names and images of the same set"
        )
    return tuple(names)


def _by_folder(classes: Sequence[str], names: dict[str, str], base: Path, where: str) -> tuple[str, ...]:
    if missing := [each for each in classes if each not in names]:
        raise UsageError(f"{where} has no line for the folder {missing[0]!r} of {base}; add it")
    return tuple(names[each].strip() for each in classes)


def _images(folder: Path) -> list[Path]:
    return sorted(
        Path(parent) / file
        for parent, _, files in os.walk(folder)
        for file in files
        if Path(file).suffix.lower() in IMAGE_TYPES and not file.startswith(".")
    )


def _prompts(base: Path, templates: str | Sequence[str] | None, name: str) -> tuple[str, ...]:
    if templates is not None:
        return given_templates(templates, name)
    return read_templates(base / TEMPLATES) if (base / TEMPLATES).is_file() else ("a photo of a {c}.",)


IMAGEFOLDER = Reader(
    about="a folder of images a class, as torchvision's ImageFolder",
    settings={
        "folder": Setting(PATH, required=True),
        "classnames": Setting(PATH, words=(IMAGENET,)),
        "templates": Setting(PROMPTS),
    },
    read=imagefolder,
    tasks=lambda row: ("zeroshot",),
    find=place_is("folder"),
)
