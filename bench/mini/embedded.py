"""The mini datasets as a dataset format: they need no files, for the package draws them itself."""

from dataclasses import replace
from pathlib import Path

from bench import registry
from bench.data.reader import Reader, Row
from bench.data.settings import COUNT, TEXT, Setting
from bench.mini.data import NAMES, SIZE, build
from tasks.base import Dataset

_PAIRS = ("keywords", "target-text", "target-caption")
_TASKS = {  # of others "zeroshot"
    "mini-caption": "captioning",
    "mini-vqa": "vqa",
    "mini-stealth": "stealth",
    "mini-stealth-unseen": "stealth",
    "mini-pope-random": "pope",
    "mini-pope-popular": "pope",
    "mini-pope-adversarial": "pope",
    "mini-scienceqa": "scienceqa",
}


def load(name: str, root: Path, *, dataset: str, size: int = SIZE) -> Dataset:
    """The first samples of an embedded dataset.

    Args:
        name: what to call it.
        root: not used.
        dataset: one of `NAMES`.
        size: number of samples.

    Raises:
        UsageError: there is no such dataset in the package.
    """
    return replace(build(_known(dataset), size), name=name)


def _known(dataset: str) -> str:
    if dataset not in NAMES:
        raise registry.unknown("embedded dataset", dataset, NAMES)
    return dataset


def _find(root: Path, place: Path, given: Row) -> dict[str, str]:
    return {"dataset": _known(str(place))}


READER = Reader(
    about="the embedded mini datasets, by name; they need no files",
    settings={"dataset": Setting(TEXT, required=True), "size": Setting(COUNT)},
    read=load,
    tasks=lambda row: _PAIRS if row["dataset"] == "mini-pairs" else (_TASKS.get(row["dataset"], "zeroshot"),),
    find=_find,
)
