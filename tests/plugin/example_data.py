"""A dataset format from outside: a folder of images beside a labels.csv with lines "file,class"."""

import csv
from pathlib import Path
from typing import Any

from bench.data.files import read_lines
from bench.data.reader import Reader, place_is
from bench.data.settings import PATH, PROMPTS, Setting
from bench.data.templates import given_templates
from tasks.base import Dataset, Sample


def labelled(name: str, root: Path, *, folder: str, templates: Any = ("a photo of a {c}",)) -> Dataset:
    rows = list(csv.reader(read_lines(root / folder / "labels.csv", "labels")))
    classes = tuple(sorted({label for _, label in rows}))
    samples = [Sample(file, root / folder / file, "", (label,), file, classes.index(label)) for file, label in rows]
    return Dataset(name, tuple(samples), classes, given_templates(templates, name), chance=100 / len(classes))


READER = Reader(
    about="images beside a labels.csv",
    settings={"folder": Setting(PATH, required=True), "templates": Setting(PROMPTS)},
    read=labelled,
    tasks=lambda row: ("zeroshot",),
    find=place_is("folder"),
)
