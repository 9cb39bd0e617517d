"""What the labels of training images stand for, and the class weights of objectives that read them."""

import hashlib
from pathlib import Path

from torch import Tensor

from bench.data.templates import imagenet_classnames
from bench.errors import UsageError
from bench.train.base import Base
from bench.train.objectives import classes_of
from bench.train.recipe import PAPER_SCALE, PAPER_TEMPLATE


def class_names(objective: str, folders: tuple[str, ...] | None, file: Path | None) -> list[str]:
    """Names of the labels: of a file, of ImageNet for its 1000 folders, else the folders' own.

    Args:
        objective: that reads the labels.
        folders: names that the data itself has for its labels; None if it has none.
        file: the user's, a name per line.

    Raises:
        UsageError: there are no names, the file cannot be read, or has another number of names than there are folders.
    """
    if file is not None:
        return _names_of_file(file, folders)
    if folders is None:
        raise UsageError(
            f"{objective} needs labels: use imagefolder:DIR or hf:NAME, or name the classes of numbered labels "
            "(WebDataset, hf:) with --classnames FILE"
        )
    imagenet = imagenet_classnames()
    if len(folders) == len(imagenet) and all(_is_wordnet(name) for name in folders):
        return list(imagenet)  # sorted WordNet ids are ImageNet's order
    return [name.replace("_", " ") for name in folders]


def _names_of_file(file: Path, folders: tuple[str, ...] | None) -> list[str]:
    try:
        names = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--classnames {file} cannot be read: {error}") from error
    if folders is not None and len(names) != len(folders):
        raise UsageError(f"{file} names {len(names)} classes, the data has {len(folders)}")
    return names


def _is_wordnet(name: str) -> bool:
    return len(name) == 9 and name[0] == "n" and name[1:].isdigit()


def class_weights(base: Base, names: list[str]) -> Tensor:
    """Class weights: the paper's template and scale, or the model's own scale if it is a SigLIP, which has a bias."""
    text = base.encoder.text
    scale = PAPER_SCALE if getattr(text.clip, "logit_bias", None) is None else text.scale
    return classes_of(text.classifier(names, [PAPER_TEMPLATE]), scale)


def digest_of(names: list[str] | None) -> str | None:
    """Changes with the class names."""
    return None if names is None else hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
