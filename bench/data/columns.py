"""Datasets in a table: Hugging Face datasets and parquet files, by a mapping of their columns."""

import ast
import io
import json
import re
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from bench import registry
from bench.data.annotators import annotator_notes
from bench.data.files import read_lines
from bench.data.folders import readable
from bench.data.hub import image_bytes, local_table
from bench.data.images import Stored
from bench.data.needed import Needed, needed_at
from bench.data.reader import Reader, Row, existing, place_is
from bench.data.settings import COLUMNS, COUNT, PATH, PROMPTS, TEXT, Setting
from bench.data.templates import given_templates
from bench.errors import UsageError
from tasks.base import Dataset, Sample

_BRACKETS = ("[]", "()", "{}")
_LIST, _QUOTED = re.compile(r"""\[\s*["']"""), re.compile(r"""[\[({]\s*["'{]""")  # how lists stored as text begin
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
        classnames: text file of class names, a line per label; by default those that the column itself has.
        templates: see `bench.data.templates.given_templates`; by default "a photo of a {c}.".

    Raises:
        UsageError: the source cannot be loaded, a role or column is not known, or a cell is not as its role asks.
    """
    rows, folder = local_table(source, root, split, config)
    chosen = _columns(f"dataset {name!r} ({source})", rows.column_names, {**(columns or {}), **roles})
    texts = rows.select_columns([column for role, column in chosen.items() if role != "image"])
    pictures = rows.select_columns([chosen["image"]]).with_format("arrow")
    labels, names = _classnames(f"dataset {name!r} ({source})", rows, chosen, root, classnames)
    samples, seen = [], set[str]()
    for number, row in enumerate(_rows(texts, source)):
        where = f"{source}, row {number}"
        cells = {role: row[column] for role, column in chosen.items() if role != "image"}
        key = _identifier(cells, "id", number, where)
        if key in seen:
            raise UsageError(f"{where}: id {key} comes twice; choose a column whose values differ")
        seen.add(key)
        cell = f"{where}, column {chosen['image']!r}"
        image = Stored(cell, partial(_image, pictures, number, chosen["image"], folder, cell))
        label = _label(cells["label"], labels, where) if names else None
        asked = _text(cells["question"], "question", where) if "question" in chosen else prompt
        references = _references(cells, names, label, where)
        group = _identifier(cells, "image_id", key, where)
        samples.append(Sample(key, image, asked, references, group, label))
    if not samples:
        raise UsageError(f"{source}, split {split!r}, holds no rows; choose another split")
    prompts = given_templates(templates or ["a photo of a {c}."], name) if names else ()
    chance = 100 / len(names) if names else None
    notes = annotator_notes(samples) if "answers" in chosen else ()
    return Dataset(name, tuple(samples), names, prompts, prompt_suffix, max_new_tokens, chance, notes=notes)


class _Classes(NamedTuple):
    """Classes in label order: as a cell may name them, and what they are called."""

    labels: tuple[str, ...]
    names: tuple[str, ...]


def _rows(texts: Any, source: str) -> Iterator[Mapping[str, Any]]:
    try:
        yield from texts
    except Exception as error:  # every format error of the datasets library ends here
        raise UsageError(f"{source} cannot be read: {str(error)[:200]}; is the file whole?") from error


def _identifier(cells: Mapping[str, Any], role: str, otherwise: int | str, where: str) -> str:
    value = cells.get(role, otherwise)
    if not isinstance(value, int | float | str):
        raise UsageError(f"{where}: {role} is {str(value)[:60]!r}, not an id; choose another column")
    return str(value)


def _columns(dataset: str, present: Sequence[str], given: Mapping[str, str]) -> dict[str, str]:
    """The column of each role that there is."""
    for role, column in given.items():
        if role not in ROLES:
            raise registry.unknown(f"role of a column of {dataset}", role, ROLES)
        if column not in present:
            raise registry.unknown(f"column of {dataset}", column, present)
    chosen = {role: given.get(role, role) for role in ROLES if role in given or role in present}
    if "image" not in chosen:
        raise UsageError(f"{dataset} has no column 'image'; say which: image=COLUMN of {', '.join(present)}")
    kinds = [kind for kind in ("answers", "captions", "label") if kind in chosen]
    if "answers" in kinds and "question" not in chosen:
        raise UsageError(f"{dataset} has answers but no column 'question'; say which: question=COLUMN")
    if not kinds:
        raise UsageError(
            f"{dataset} has no column 'answers', 'captions' or 'label'; say which of {', '.join(present)} "
            "is one, e.g. answers=COLUMN"
        )
    surplus = {"answers": ("captions", "label"), "captions": ("label", "question"), "label": ("question",)}[kinds[0]]
    return {role: column for role, column in chosen.items() if role not in surplus}


def _classnames(dataset: str, rows: Any, chosen: Mapping[str, str], root: Path, path: str | None) -> _Classes:
    """The classes of a classification set; none of another set.

    A table's labels are identifiers, as folders' names are: a class is called by it with spaces for underscores. A
    file of class names is taken to the letter.
    """
    import datasets

    if "label" not in chosen:
        return _Classes((), ())
    if path is not None:
        return _Classes(*[tuple(read_lines(root / path, "class names"))] * 2)
    kind = rows.features[chosen["label"]]
    if isinstance(kind, datasets.ClassLabel):
        return _Classes(tuple(kind.names), tuple(map(readable, kind.names)))
    values = list(rows[chosen["label"]])
    if not all(isinstance(value, str) for value in values):
        raise UsageError(f"the labels of {dataset} are numbers without names; give a file of classnames")
    labels = sorted(set(values))
    return _Classes(tuple(labels), tuple(map(readable, labels)))


def _label(value: Any, labels: Sequence[str], where: str) -> int:
    label = labels.index(value) if value in labels else value
    if not isinstance(label, int) or not 0 <= label < len(labels):
        raise UsageError(f"{where}: label {value!r} is none of the {len(labels)} classes; check the class names")
    return label


def _references(cells: Mapping[str, Any], names: Sequence[str], label: int | None, where: str) -> tuple[str, ...]:
    if label is not None:
        return (names[label],)
    role = "answers" if "answers" in cells else "captions"
    value = cells[role]
    if isinstance(value, Mapping):
        value = value.get("answer")
    if isinstance(value, str):
        value = _listed(value, f"{where}: {role}")
    several = value if isinstance(value, list) else [] if value is None else [value]
    texts = tuple(_text(v.get("answer") if isinstance(v, Mapping) else v, role, where) for v in several)
    if not texts:
        raise UsageError(f"{where} has no {role} to score against; remove the row, or choose a split that has them")
    return texts


def _listed(text: str, where: str) -> list[Any]:
    """The texts of a list that was stored as text, as JSON or as Python writes it; one text otherwise.

    Raises:
        UsageError: it looks like a list of texts, but is not a whole one.
    """
    bare = text.strip()
    closed = bare[:1] + bare[-1:] in _BRACKETS
    if not closed and not _LIST.match(bare):
        return [text]
    value = next((value for value in (_json(bare), _literal(bare)) if value is not None), None)
    if isinstance(value, list | tuple) and value and all(isinstance(one, str) for one in value):
        return list(value)
    if value is None and not _QUOTED.match(bare):
        return [text]  # such as "[unclear]": words in brackets
    raise UsageError(f"{where} is {bare[:60]!r}, which is no list of texts; store a list, or its JSON, in that column")


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _literal(text: str) -> Any:
    """The value of a Python literal; None where two texts stand side by side, which Python would make into one."""
    try:
        tokens = [token.type for token in tokenize.generate_tokens(io.StringIO(text).readline)]
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError):
        return None
    return None if (tokenize.STRING, tokenize.STRING) in pairwise(tokens) else value


def _text(value: Any, role: str, where: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{where}: {role} is {str(value)[:60]!r}, not a text; choose another column")
    return value


def _image(pictures: Any, number: int, column: str, folder: Path, where: str) -> bytes:
    return image_bytes(pictures[number][column][0].as_py(), folder, where)


def _needed(row: Row, root: Path) -> list[Needed]:
    """Nothing if the source is perhaps in the hub's cache: reading it tells."""
    named = [key for key in ("source", "classnames") if key in row]
    return [needed_at(row[key], root) for key in named] if (root / row["source"]).exists() else []


def _find_on_hub(root: Path, place: Path, given: Row) -> dict[str, Any]:
    if place.is_absolute() or len(place.parts) > 2:  # no id of the hub's
        existing(root, place)
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
