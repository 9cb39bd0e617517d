"""Training images in a table that the ``datasets`` library reads."""

from functools import partial
from pathlib import Path
from typing import Any

from bench import registry
from bench.data.hub import image_bytes, local_table
from bench.errors import UsageError
from bench.train.sources import IndexedSource, Raw

DEFAULTS = {"split": "train", "config": "", "image": "image", "label": "label"}


def open_table(spec: str, where: str) -> IndexedSource:
    """The rows of a dataset that lies in a folder or in the local cache of the hub; nothing is downloaded.

    Args:
        spec: as the user gave it.
        where: ``NAME?split=train&config=...&image=image&label=label``.

    Raises:
        UsageError: it is not there, cannot be loaded, or lacks a column that is named.
    """
    name, _, query = where.partition("?")
    given = registry.options(query, spec)
    options = DEFAULTS | given
    if unknown := sorted(options.keys() - DEFAULTS.keys()):
        raise UsageError(f"{spec}: unknown option {unknown[0]!r}; there are {', '.join(DEFAULTS)}")
    image, label = options["image"], options["label"]
    rows, folder = local_table(name, Path(), options["split"], options["config"] or None)
    for column in (image, *((label,) if "label" in given else ())):
        if column not in rows.column_names:
            raise UsageError(f"{spec}: no column {column!r}; there are {', '.join(rows.column_names)}")
    pictures = rows.select_columns([image])
    classes, labels = _labels(rows, label)

    def item(row: int) -> Raw:
        label = None if labels is None else labels[row]
        return Raw(f"{name}[{row}]", partial(_cell, pictures, row, image, folder, name), label)

    return IndexedSource(spec, len(rows), item, f"{len(rows)} rows, {rows._fingerprint}", classes)


def _labels(rows: Any, column: str) -> tuple[tuple[str, ...] | None, list[int | None] | None]:
    """Names of the classes and the labels of the rows, where a column of whole numbers holds them."""
    import datasets

    feature = rows.features.get(column)
    classes = tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else None
    if classes is None and not str(getattr(feature, "dtype", "")).startswith(("int", "uint")):
        return None, None
    return classes, list(rows.select_columns([column])[column])


def _cell(pictures: Any, row: int, column: str, folder: Path, name: str) -> bytes:
    """The encoded image of one row; read by the thread that decodes it."""
    return image_bytes(pictures[row][column], folder, f"{name}, row {row}, column {column!r}")
