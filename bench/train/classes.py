"""What the labels of training images stand for, and the class weights of objectives that read them."""

import hashlib
from pathlib import Path

from torch import Tensor

from bench.data import folders
from bench.data.files import read_lines
from bench.data.templates import IMAGENET, imagenet_classnames
from bench.errors import UsageError
from bench.train.base import Base
from bench.train.objectives import classes_of
from bench.train.recipe import PAPER_SCALE, PAPER_TEMPLATE
from bench.train.sources import Source

IMAGENET_CLASSES = 1000


def class_names(objective: str, source: Source, file: Path | None) -> list[str]:
    """Names of the labels, by the rules of evaluation (`bench.data.folders`).

    Args:
        objective: that reads the labels.
        source: whose labels they are.
        file: the user's, a name per line or folder<TAB>name, or "imagenet"; by default the names in the data, or
            ImageNet's for its 1000 folders.

    Raises:
        UsageError: there are no names, the file cannot be read or does not fit the classes of the data.
    """
    given = None if file is None else str(file)
    if source.base is not None and source.classes is not None:
        imagenet = len(source.classes) == IMAGENET_CLASSES and all(_is_wordnet(name) for name in source.classes)
        if given is None and imagenet and not (source.base / folders.CLASSNAMES).is_file():
            given = IMAGENET
        return list(folders.class_names(source.classes, source.base, Path(), given))
    if given is not None:
        names = list(imagenet_classnames()) if given == IMAGENET else read_lines(Path(given), "class names")
        return names if source.classes is None else list(folders.names_in_order(source.classes, names, given))
    if source.classes is None:
        raise UsageError(
            f"{objective} needs labels: use imagefolder:DIR or hf:NAME, or name the classes of numbered labels "
            "(WebDataset, hf:) with --classnames FILE"
        )
    return [folders.readable(name) for name in source.classes]


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
