"""Datasets in a table: datasets of the hub, parquet and TSV files, by a mapping of their columns."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from bench.data import cells as read
from bench.data import column_maps as maps
from bench.data.annotators import annotator_notes
from bench.data.files import read_lines
from bench.data.folders import readable
from bench.data.hub import local_table
from bench.data.needed import Needed, needed_at
from bench.data.pictures import Pictures, joined_pictures, pictures_of, with_image
from bench.data.prompts import check_template, filled, lettered
from bench.data.reader import Reader, Row, existing, place_is
from bench.data.roles import ROLES, TASKS, Columns
from bench.data.settings import COLUMNS, COUNT, IMAGE_TEXT, PATH, PROMPTS, TEXT, Setting
from bench.data.templates import given_templates
from bench.errors import UsageError
from tasks.base import Dataset, Sample

_PLAIN = maps.ColumnMap("", "", "", {})


def table(
    name: str,
    root: Path,
    *,
    source: str,
    column_map: str | None = None,
    columns: Mapping[str, str] | None = None,
    split: str | None = None,
    config: str | None = None,
    prompt: str | None = None,
    prompt_suffix: str | None = None,
    template: str | None = None,
    max_new_tokens: int = 20,
    classnames: str | None = None,
    templates: str | Sequence[str] | None = None,
    image_text: str | None = None,
    images_source: str | None = None,
    images_config: str | None = None,
    **roles: str,
) -> Dataset:
    """The rows of a table, in its order; images stay in it until they are opened.

    Columns "question" and "answers" make a set for VQA, "captions" one for captioning, "label" one for zero-shot
    classification; "question", "choices" and "answer" one of multiple choice, "question" and "yes_no" one like POPE.

    Args:
        name: of the dataset.
        root: the folder that the paths are relative to.
        source: a parquet or TSV file, a folder that the ``datasets`` library can load, or the hub id of a dataset that
            is in the local cache of the hub (`hf download --repo-type dataset` puts it there; nothing is downloaded).
        column_map: name of a row of `bench.data.column_maps`, whose settings hold where no others are given.
        columns: which column holds a role, e.g. ``{"question": "query"}``; those of `bench.data.roles.BY_NAME` are by
            default the ones called so, the others must be named. "image" must be there; "id" is by default the row's
            number, "image_id" the id. "choices" is a column of lists, or the options' columns joined by commas.
            "answer" tells the right option by its index from 0, its letter or its text.
        roles: the same, a keyword a role: ``question="query"``.
        split: which split, by default "test"; of a file the only one.
        config: which configuration of the dataset.
        prompt: asked of every image where there are no questions.
        prompt_suffix: appended to every question by the task.
        template: makes the prompt of a row's question, hint, ocr and choices (see `bench.data.prompts.filled`); by
            default the question, and the choices on lines of their own.
        max_new_tokens: limit of an answer.
        classnames: text file of class names, a line per label; by default those that the column itself has.
        templates: see `bench.data.templates.given_templates`; by default "a photo of a {c}.".
        image_text: what a text in the column of images is, "path" (the default) or "base64".
        images_source: a table of the images, whose column "id" has the ids in "image_id".
        images_config: the configuration of ``images_source``, by default of ``source``, that holds such a table.

    Raises:
        UsageError: the source cannot be loaded, a role or column is not known, or a cell is not as its role asks.
    """
    facts, where = _facts(column_map), f"dataset {name!r} ({source})"
    split, text = split or facts.split or "test", image_text or facts.image_text
    rows, folder = local_table(source, root, split, config or facts.config)
    named = {**(columns or {}), **roles}
    joined = images_source or images_config or facts.images_config
    chosen = Columns.of(where, rows.column_names, facts, named, joined=joined is not None)
    kept = with_image(rows, chosen.image) if facts.image_optional and not joined else None
    labels, names = _classnames(where, rows, chosen.of_role, root, classnames)
    pattern = template or facts.template or chosen.template
    check_template(pattern, chosen.fields, where)
    maker = _Maker(source, facts, chosen, labels, names, pattern, facts.prompt if prompt is None else prompt)
    samples, numbers = [], dict[str, int]()
    if joined:
        place, part = images_source or source, images_config or facts.images_config
        pictures = joined_pictures(place, root, split, part, chosen.image, text)
    else:
        pictures = pictures_of(rows, chosen.image, folder, text, numbers, source)
    for number, row in enumerate(_rows(rows.select_columns(chosen.texts), source)):
        if kept is None or kept[number]:
            samples.append(maker.sample(number, row, numbers, pictures, joined=joined is not None))
    if not samples:
        raise UsageError(f"{source}, split {split!r}, holds no rows; choose another split")
    notes = annotator_notes(samples) if chosen.kind == "answers" and facts.scoring == "annotators" else ()
    left = 0 if kept is None else kept.count(False)
    return Dataset(
        name,
        tuple(samples),
        names,
        given_templates(templates or ["a photo of a {c}."], name) if names else (),
        facts.prompt_suffix if prompt_suffix is None else prompt_suffix,
        max_new_tokens,
        100 / len(names) if names else None,
        scoring=facts.scoring,
        notes=(*notes, *chosen.notes, *([f"rows without an image, which are left out: {left}"] if left else [])),
    )


def _facts(name: str | None) -> maps.ColumnMap:
    return maps.column_map(name) or _PLAIN


class _Classes(NamedTuple):
    """Classes in label order: as a cell may name them, and what they are called."""

    labels: tuple[str, ...]
    names: tuple[str, ...]


class _Maker(NamedTuple):
    """Makes samples of rows."""

    source: str
    facts: maps.ColumnMap
    chosen: Columns
    labels: tuple[str, ...]
    names: tuple[str, ...]
    template: str
    prompt: str

    def sample(
        self, number: int, row: Mapping[str, Any], numbers: dict[str, int], pictures: Pictures, *, joined: bool
    ) -> Sample:
        """The sample of a row, whose number is noted under its id."""
        where = f"{self.source}, row {number}"
        cells = {
            role: self._cell(row[c]) for role, c in self.chosen.of_role.items() if role not in ("image", "choices")
        }
        key = read.identifier(cells.get("id", number), "id", where)
        if key in numbers:
            raise UsageError(f"{where}: id {key} comes twice; choose a column whose values differ")
        numbers[key] = number
        group = read.identifier(cells.get("image_id", key), "image_id", where)
        image = pictures.of_id(group, where) if joined else pictures.of_row(number)
        options = self._choices(row, where)
        label = self._label(cells, options, where)
        asked = self._prompt(cells, options, where)
        said = self._references(cells, options, label, where)
        return Sample(key, image, asked, said, group, label, choices=options, categories=self._categories(cells))

    def _cell(self, value: Any) -> Any:
        return "" if isinstance(value, str) and value in self.facts.empty else value

    def _choices(self, row: Mapping[str, Any], where: str) -> tuple[str, ...]:
        if self.chosen.kind != "choices":
            return ()
        return read.choices([self._cell(row[column]) for column in self.chosen.options], where)

    def _label(self, cells: Mapping[str, Any], options: Sequence[str], where: str) -> int | None:
        if options:
            return read.right_option(cells["answer"], options, where)
        return _label(cells["label"], self.labels, where) if self.names else None

    def _prompt(self, cells: Mapping[str, Any], options: Sequence[str], where: str) -> str:
        if "question" not in cells:
            return self.prompt
        read.text(cells["question"], "question", where)
        values = {role: _joined(cells[role], role, where) for role in self.chosen.fields if role != "choices"}
        return filled(self.template, {**values, "choices": "\n".join(lettered(options))})

    def _references(
        self, cells: Mapping[str, Any], options: Sequence[str], label: int | None, where: str
    ) -> tuple[str, ...]:
        if label is not None:
            return ((options or self.names)[label],)
        if self.chosen.kind == "yes_no":
            return (read.yes_or_no(cells["yes_no"], where),)
        return read.references(cells[self.chosen.kind], self.chosen.kind, where)

    def _categories(self, cells: Mapping[str, Any]) -> tuple[str, ...]:
        value = cells.get("category")
        return () if value in (None, "") else (f"{self.chosen.of_role['category']}: {value}",)


def _joined(value: Any, role: str, where: str) -> str:
    """A text, or the texts of a list; nothing where there is none."""
    several = value if isinstance(value, list) else [] if value is None else [value]
    return ", ".join(read.text(one, role, where) for one in several)


def _rows(texts: Any, source: str) -> Iterator[Mapping[str, Any]]:
    try:
        yield from texts
    except Exception as error:  # every format error of the datasets library ends here
        raise UsageError(f"{source} cannot be read: {str(error)[:200]}; is the file whole?") from error


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


def _needed(row: Row, root: Path) -> list[Needed]:
    """Nothing if the source is perhaps in the hub's cache: reading it tells."""
    named = [key for key in ("source", "classnames", "images_source") if key in row]
    return [needed_at(row[key], root) for key in named] if (root / row["source"]).exists() else []


def _tasks(row: Row) -> tuple[str, ...]:
    facts = _facts(row.get("column_map"))
    if facts.task:
        return (facts.task,)
    named = {**row.get("columns", {}), **row}
    asked = next((task for role, task in TASKS.items() if role in ("choices", "yes_no") and role in named), None)
    return ("zeroshot", "captioning", "vqa") if asked is None else (asked,)


def _find_on_hub(root: Path, place: Path, given: Row) -> dict[str, Any]:
    if place.is_absolute() or len(place.parts) > 2:  # no id of the hub's
        existing(root, place)
    known = None if "column_map" in given else maps.of_hub(str(place))
    return {"source": str(place), **({"column_map": known} if known else {})}


def _find_tsv(root: Path, place: Path, given: Row) -> dict[str, Any]:
    existing(root, place)
    if "column_map" in given or {*ROLES} & given.keys():
        return {"source": str(place)}
    if (known := maps.of_file(place.stem)) is None:
        known = ", ".join(name for name, one in maps.column_maps().items() if one.files)
        raise UsageError(
            f"{root / place} is called like no known file; say what its columns are: ?column_map=NAME, of {known}"
        )
    return {"source": str(place), "column_map": known}


TABLE = Reader(
    about="a table: a parquet file, or what the datasets library loads; by a mapping of its columns",
    settings={
        "source": Setting(PATH, required=True),
        "column_map": Setting(TEXT),
        "columns": Setting(COLUMNS),
        "split": Setting(TEXT),
        "config": Setting(TEXT),
        "prompt": Setting(TEXT),
        "prompt_suffix": Setting(TEXT),
        "template": Setting(TEXT),
        "max_new_tokens": Setting(COUNT),
        "classnames": Setting(PATH),
        "templates": Setting(PROMPTS),
        "image_text": Setting(IMAGE_TEXT),
        "images_source": Setting(PATH),
        "images_config": Setting(TEXT),
        **{role: Setting(TEXT) for role in ROLES},
    },
    read=table,
    tasks=_tasks,
    find=place_is("source"),
    needed=_needed,
)
HUB = replace(TABLE, about="a dataset of the hub, from its local cache", find=_find_on_hub)
TSV = replace(TABLE, about="a TSV file with images in base64, as VLMEvalKit's", find=_find_tsv)
