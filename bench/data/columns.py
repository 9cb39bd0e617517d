"""Datasets in a table: Hugging Face datasets and parquet files, by a mapping of their columns."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from bench import registry
from bench.data.files import read_lines
from bench.data.hub import image_bytes, local_table
from bench.data.images import Stored
from bench.data.needed import Needed, needed_at
from bench.data.reader import Reader, Row, place_is
from bench.data.settings import COLUMNS, COUNT, PATH, PROMPTS, TEXT, Setting
from bench.data.templates import given_templates
from bench.errors import UsageError
from tasks.base import Dataset, Sample

ROLES = ("id", "image", "image_id", "question", "answers", "captions", "label")


def table(
    name: str,
    root: Path,
    *,
    source: str,
    columns: Mapping[str, str] | None = None,
    split: str = "test",
    config: str | None = None,
    prompt: str = "",
    prompt_suffix: str = "",
    max_new_tokens: int = 20,
    classnames: str | None = None,
    templates: str | Sequence[str] | None = None,
    **roles: str,
) -> Dataset:
    """The rows of a table, in its order; images stay in it until they are opened.

    Columns "question" and "answers" make a set for VQA, "captions" one for captioning, "label" one for zero-shot
    classification.

    Args:
        name: of the dataset.
        root: the folder that the paths are relative to.
        source: a parquet file, a folder that the ``datasets`` library can load, or the hub id of a dataset that is
            in the local cache of the hub (`hf download --repo-type dataset` puts it there; nothing is downloaded here).
        columns: which column holds a role, e.g. ``{"question": "query"}``; by default the one called like the role.
            "image" must be there; "id" is by default the row's number, "image_id" the id.
        roles: the same, a keyword a role: ``question="query"``.
        split: which split; of a parquet file the only one.
        config: which configuration of the dataset.
        prompt: asked of every image where there are no questions.
        prompt_suffix: appended to every question by the task.
        max_new_tokens: limit of an answer.
        classnames: text file of class names, a line a label; by default those that the column itself has.
        templates: see `bench.data.templates.given_templates`; by default "a photo of a {c}.".

    Raises:
        UsageError: the source cannot be loaded, a role or column is not known, or a cell is not as its role asks.
    """
    rows = local_table(source, root, split, config)
    chosen = _columns(name, rows.column_names, {**(columns or {}), **roles})
    texts = rows.select_columns([column for role, column in chosen.items() if role != "image"])
    pictures = rows.select_columns([chosen["image"]]).with_format("arrow")
    names = _classnames(name, rows, chosen, root, classnames)
    samples, seen = [], set[str]()
    for number, row in enumerate(texts):
        where = f"{source}, row {number}"
        cells = {role: row[column] for role, column in chosen.items() if role != "image"}
        key = str(cells.get("id", number))
        if key in seen:
            raise UsageError(f"{where}: id {key} comes twice; choose a column whose values differ")
        seen.add(key)
        image = Stored(f"{where}, column {chosen['image']!r}", partial(_image, pictures, number, chosen["image"]))
        label = _label(cells["label"], names, where) if names else None
        asked = _text(cells["question"], "question", where) if "question" in chosen else prompt
        references = _references(cells, names, label, where)
        samples.append(Sample(key, image, asked, references, str(cells.get("image_id", key)), label))
    if not samples:
        raise UsageError(f"{source}, split {split!r}, holds no rows; choose another split")
    prompts = given_templates(templates or ["a photo of a {c}."], name) if names else ()
    chance = 100 / len(names) if names else None
    return Dataset(name, tuple(samples), names, prompts, prompt_suffix, max_new_tokens, chance)


def _columns(name: str, present: Sequence[str], given: Mapping[str, str]) -> dict[str, str]:
    """The column of each role that there is."""
    for role, column in given.items():
        if role not in ROLES:
            raise registry.unknown(f"role of a column of dataset {name!r}", role, ROLES)
        if column not in present:
            raise registry.unknown(f"column of dataset {name!r}", column, present)
    chosen = {role: given.get(role, role) for role in ROLES if role in given or role in present}
    if "image" not in chosen:
        raise UsageError(f"dataset {name!r} has no column 'image'; say which: image=COLUMN of {', '.join(present)}")
    kinds = [kind for kind in ("answers", "captions", "label") if kind in chosen]
    if "answers" in kinds and "question" not in chosen:
        raise UsageError(f"dataset {name!r} has answers but no column 'question'; say which: question=COLUMN")
    if not kinds:
        raise UsageError(
            f"dataset {name!r} has no column 'answers', 'captions' or 'label'; say which of {', '.join(present)} "
            "is one, e.g. answers=COLUMN"
        )
    surplus = {"answers": ("captions", "label"), "captions": ("label", "question"), "label": ("question",)}[kinds[0]]
    return {role: column for role, column in chosen.items() if role not in surplus}


def _classnames(name: str, rows: Any, chosen: Mapping[str, str], root: Path, path: str | None) -> tuple[str, ...]:
    """Class names of a classification set, in label order; none of another set."""
    import datasets

    if "label" not in chosen:
        return ()
    if path is not None:
        return tuple(read_lines(root / path, "class names"))
    kind = rows.features[chosen["label"]]
    if isinstance(kind, datasets.ClassLabel):
        return tuple(kind.names)
    values = sorted(set(rows[chosen["label"]]), key=str)
    if not all(isinstance(value, str) for value in values):
        raise UsageError(f"the labels of dataset {name!r} are numbers without names; give a file of classnames")
    return tuple(values)


def _label(value: Any, names: Sequence[str], where: str) -> int:
    label = names.index(value) if value in names else value
    if not isinstance(label, int) or not 0 <= label < len(names):
        raise UsageError(f"{where}: label {value!r} is none of the {len(names)} classes; check the class names")
    return label


def _references(cells: Mapping[str, Any], names: Sequence[str], label: int | None, where: str) -> tuple[str, ...]:
    if label is not None:
        return (names[label],)
    role = "answers" if "answers" in cells else "captions"
    value = cells[role]
    several = value if isinstance(value, list) else [] if value is None else [value]
    texts = tuple(_text(v.get("answer") if isinstance(v, Mapping) else v, role, where) for v in several)
    if not texts:
        raise UsageError(f"{where} has no {role} to score against; remove the row, or choose a split that has them")
    return texts


def _text(value: Any, role: str, where: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{where}: {role} is {str(value)[:60]!r}, not a text; choose another column")
    return value


def _image(pictures: Any, number: int, column: str) -> bytes:
    return image_bytes(pictures[number][column][0].as_py(), f"column {column!r}, row {number}")


def _needed(row: Row, root: Path) -> list[Needed]:
    """Nothing if the source is perhaps in the hub's cache: reading it tells."""
    named = [key for key in ("source", "classnames") if key in row]
    return [needed_at(row[key], root) for key in named] if (root / row["source"]).exists() else []


def _find_on_hub(root: Path, place: Path, given: Row) -> dict[str, Any]:
    return {"source": str(place)}


TABLE = Reader(
    about="a table: a parquet file, or what the datasets library loads; by a mapping of its columns",
    settings={
        "source": Setting(PATH, required=True),
        "columns": Setting(COLUMNS),
        "split": Setting(TEXT),
        "config": Setting(TEXT),
        "prompt": Setting(TEXT),
        "prompt_suffix": Setting(TEXT),
        "max_new_tokens": Setting(COUNT),
        "classnames": Setting(PATH),
        "templates": Setting(PROMPTS),
        **{role: Setting(TEXT) for role in ROLES},
    },
    read=table,
    tasks=lambda row: ("zeroshot", "captioning", "vqa"),
    find=place_is("source"),
    needed=_needed,
)
HUB = replace(TABLE, about="a dataset of the hub, from its local cache", find=_find_on_hub)
