"""Classification sets as a folder of images for each class, as torchvision's ImageFolder has them."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.data.files import existing_folder, listing, read_lines, spelled
from bench.data.reader import Reader, place_is
from bench.data.settings import PATH, PROMPTS, Setting
from bench.data.templates import IMAGENET, TEMPLATES, given_templates, imagenet_classnames, read_templates
from bench.errors import UsageError
from tasks.base import Dataset, Sample

CLASSNAMES = "classnames.txt"
IMAGE_TYPES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif")
UNREAD = (".heic", ".heif", ".jxl", ".jp2", ".svg", ".dng", ".npy")  # images of types that are not read
NO_CLASSES = ("__MACOSX", "@eaDir")  # what archives and file servers leave beside the classes' folders
_WORDNET = re.compile(r"n\d{8}")


def imagefolder(
    name: str,
    root: Path,
    *,
    folder: str,
    classnames: str | None = None,
    templates: str | Sequence[str] | None = None,
) -> Dataset:
    """Images in one folder per class.

    Hidden folders and those that archives leave (`NO_CLASSES`) are no classes; a class without images stays one, and
    `Dataset.notes` names it.

    Args:
        name: of the dataset.
        root: the folder that the paths are relative to.
        folder: holds the classes' folders.
        classnames: a text file, by default ``folder``'s classnames.txt if there is one: a line per class, either
            "folder<TAB>name" or just the names, in the order of `class_order`; or "imagenet" for its 1000 names, whose
            folders are called by WordNet id or by number. Without any, a folder's name is its class's, with spaces
            for underscores.
        templates: see `bench.data.templates.given_templates`; by default ``folder``'s
            zeroshot_classification_templates.txt if there is one, else "a photo of a {c}.".

    Raises:
        UsageError: a folder or file is missing or damaged, the class names do not fit the folders, or there are no
            images.
    """
    base = existing_folder(root / folder, f"dataset {name!r}")
    classes = class_order([entry.name for entry in listing(base) if entry.is_dir() and is_class(entry.name)])
    names = class_names(classes, base, root, classnames)
    samples, notes = [], said_of([path for path in listing(base) if path.is_file()], IMAGE_TYPES, "in no class")
    for label, each in enumerate(classes):
        found = files_below(base / each)
        images = [file for file in found if file.suffix.lower() in IMAGE_TYPES]
        keys = [spelled(file.relative_to(base)) for file in images]
        samples += [Sample(key, file, "", (names[label],), key, label) for key, file in zip(keys, images, strict=True)]
        notes += [] if images else [f"the class {each!r} has no images; remove the folder {base / each} if it is none"]
        notes += said_of(found, UNREAD, "of a type that is not read; convert them to PNG")
    if not samples:
        raise UsageError(f"{base} holds no images in folders of classes; put a folder for each class there")
    prompts = _prompts(base, templates, name)
    return Dataset(name, tuple(samples), names, prompts, chance=100 / len(names), notes=tuple(notes))


def class_order(folders: Sequence[str]) -> list[str]:
    """Classes' folders in the order of their labels: by number if all are called by numbers, else by alphabet."""
    return sorted(folders, key=int) if folders and all(map(_is_number, folders)) else sorted(folders)


def names_in_order(folders: Sequence[str], names: Sequence[str], where: str) -> tuple[str, ...]:
    """Names that stand in the order of the classes' folders, one a folder.

    Args:
        folders: as `class_order` gives them.
        names: a line each.
        where: the file they stand in, for messages.

    Returns:
        The names.

    Raises:
        UsageError: there are more or fewer, folders called by numbers are not 0 to n - 1 or 1 to n, or a folder's own
            name stands at the place of another.
    """
    if len(names) != len(folders):
        raise UsageError(
            f"there are {len(folders)} classes' folders, but {where} has {len(names)} class names; "
            "use class names and images of the same set"
        )
    numbers = [int(each) for each in folders] if all(map(_is_number, folders)) else None
    if numbers is not None and numbers not in (list(range(len(names))), list(range(1, len(names) + 1))):
        raise UsageError(
            f"the classes' folders are called by numbers, but not 0 to {len(names) - 1} or 1 to {len(names)}, so "
            f"{where} does not say whose names its lines are; write each as folder<TAB>name"
        )
    own = {_plain(each): each for each in folders}
    for each, given in zip(folders, names, strict=True):
        if numbers is None and own.get(_plain(given), each) != each:
            raise UsageError(
                f"{where} would call the folder {each!r} {given!r}, which is the name of the folder "
                f"{own[_plain(given)]!r}; write each line as folder<TAB>name"
            )
    return tuple(names)


def readable(identifier: str) -> str:
    """A class's name from what files call it, a folder's name or a table's label: spaces for underscores."""
    return identifier.replace("_", " ")


def is_class(folder: str) -> bool:
    """Whether a folder of this name is a class: not hidden, nor one that archives and file servers leave."""
    return not folder.startswith(".") and folder not in NO_CLASSES


def _is_number(folder: str) -> bool:
    return folder.isascii() and folder.isdecimal()


def _plain(name: str) -> str:
    return readable(name).strip().lower()


def said_of(files: Sequence[Path], types: Sequence[str], what: str) -> list[str]:
    """One line about the files of some types, if there are any."""
    found = [file for file in files if file.suffix.lower() in types and not file.name.startswith(".")]
    return [f"{len(found)} images, such as {found[0]}, are {what}"] if found else []


def class_names(classes: Sequence[str], base: Path, root: Path, given: str | None) -> tuple[str, ...]:
    """Names of the classes, here and in training.

    Args:
        classes: their folders, as `class_order` gives them.
        base: the folder that they lie in.
        root: the folder that ``given`` is relative to.
        given: see `imagefolder`.

    Returns:
        A name for each.

    Raises:
        UsageError: as `imagefolder`.
    """
    if given == IMAGENET:
        return _imagenet(classes, base)
    if given is None and not (base / CLASSNAMES).is_file():
        return tuple(readable(each) for each in classes)
    path = base / CLASSNAMES if given is None else root / given
    names = read_lines(path, "class names")
    if any("\t" in line for line in names):
        return _by_folder(classes, _pairs(names, path), base, path)
    return names_in_order(classes, names, str(path))


def _pairs(lines: Sequence[str], path: Path) -> dict[str, str]:
    """Names by folder, of lines "folder<TAB>name".

    Raises:
        UsageError: a line is not of this form, or a folder has two names.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        folder, tab, name = line.partition("\t")
        if not tab or not folder.strip():
            raise UsageError(f"{path}: line {number} is {line!r}, and others are folder<TAB>name; write it so, too")
        if found.setdefault(folder, name) != name:
            raise UsageError(
                f"{path}: line {number} calls the folder {folder!r} {name!r}, an earlier one {found[folder]!r}"
            )
    return found


def _imagenet(classes: Sequence[str], base: Path) -> tuple[str, ...]:
    names = imagenet_classnames()
    known = all(map(_WORDNET.fullmatch, classes)) or all(map(_is_number, classes))
    if len(classes) == len(names) and not known:
        raise UsageError(
            f"{base}: the classes' folders are not all called by WordNet id, nor all by number, so it is not known "
            f"which of ImageNet's classes each is; write folder<TAB>name lines into {base / CLASSNAMES} instead"
        )
    return names_in_order(classes, names, f"ImageNet's list, for {base},")


def _by_folder(classes: Sequence[str], names: Mapping[str, str], base: Path, path: Path) -> tuple[str, ...]:
    if missing := [each for each in classes if each not in names]:
        raise UsageError(f"{path} has no line for the folder {missing[0]!r} of {base}; add it")
    return tuple(names[each].strip() for each in classes)


def files_below(folder: Path) -> list[Path]:
    """Files at any depth, without hidden ones."""
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = filter(is_class, folders)
        found += [Path(parent) / file for file in files if not file.startswith(".")]
    return sorted(found)


def _prompts(base: Path, templates: str | Sequence[str] | None, name: str) -> tuple[str, ...]:
    if templates is not None:
        return given_templates(templates, name)
    return read_templates(base / TEMPLATES) if (base / TEMPLATES).is_file() else ("a photo of a {c}.",)


IMAGEFOLDER = Reader(
    about="a folder of images per class, as torchvision's ImageFolder",
    settings={
        "folder": Setting(PATH, required=True),
        "classnames": Setting(PATH, words=(IMAGENET,)),
        "templates": Setting(PROMPTS),
    },
    read=imagefolder,
    tasks=lambda row: ("zeroshot",),
    find=place_is("folder"),
)
