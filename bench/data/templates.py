"""Prompt templates and class names of zero-shot classification."""

from collections.abc import Sequence
from pathlib import Path

from bench.data.files import read_lines
from bench.errors import UsageError

TEMPLATES = "zeroshot_classification_templates.txt"
IMAGENET = "imagenet"


def imagenet_templates() -> tuple[str, ...]:
    """The 80 of Radford et al. 2021 (arXiv 2103.00020), as open_clip lists them."""
    from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES

    return tuple(template("{c}") for template in OPENAI_IMAGENET_TEMPLATES)


def imagenet_classnames() -> tuple[str, ...]:
    """The 1000 of Radford et al. 2021, as open_clip lists them; "missile" and "sunglasses" stand twice."""
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES

    return tuple(IMAGENET_CLASSNAMES)


def given_templates(templates: str | Sequence[str], name: str) -> tuple[str, ...]:
    """The templates that a suite's row gives: a list, or "imagenet" for the 80 of ImageNet.

    Raises:
        UsageError: an unknown word, an empty list, or a template without ``{c}``.
    """
    if templates == IMAGENET:
        return imagenet_templates()
    where = f"dataset {name!r}: templates"
    if isinstance(templates, str) or not templates:
        raise UsageError(f"{where} must be {IMAGENET!r} or a list of texts, not {templates!r}; fix its row")
    return _checked(templates, where)


def read_templates(path: Path) -> tuple[str, ...]:
    """The templates of a file, one a line.

    Raises:
        UsageError: the file is missing or damaged, or a template lacks ``{c}``.
    """
    return _checked(read_lines(path, "prompt templates"), str(path))


def _checked(templates: Sequence[str], where: str) -> tuple[str, ...]:
    for number, template in enumerate(templates, start=1):
        if "{c}" not in template:
            raise UsageError(f"{where}: line {number}, {template!r}, has no field {{c}} for the class name; add it")
    return tuple(templates)
