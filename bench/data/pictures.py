"""The images of a table: which rows have one, and the bytes of each when it is opened."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.data.hub import image_bytes, local_table
from bench.data.images import Stored
from bench.errors import UsageError

_SHORTEST = 64  # characters of an image in base64; VLMEvalKit has the index of another row in the place of a repetition


@dataclass(frozen=True)
class Pictures:
    """Images in one column of a table.

    Attributes:
        rows: a `datasets.Dataset` in arrow format.
        column: that holds them.
        folder: where image files that it names lie.
        text: what a text in the column is, "path" or "base64".
        numbers: row numbers by id: of the rows that hold the images, where these are joined; else of all rows, for a
            cell may name another row.
        source: what messages call the table.
    """

    rows: Any
    column: str
    folder: Path
    text: str
    numbers: Mapping[str, int]
    source: str

    def of_row(self, number: int) -> Stored:
        """The image in a row."""
        where = f"{self.source}, row {number}, column {self.column!r}"
        return Stored(where, partial(self._bytes, number, where))

    def of_id(self, key: str, where: str) -> Stored:
        """The image of an id.

        Raises:
            UsageError: no row has it; ``where`` says which row asks.
        """
        if key not in self.numbers:
            raise UsageError(f"{where}: {self.source} has no image with id {key!r}; use tables of the same release")
        return self.of_row(self.numbers[key])

    def _bytes(self, number: int, where: str) -> bytes:
        cell = self.rows[number][self.column][0].as_py()
        if self.text == "base64" and isinstance(cell, str) and len(cell) <= _SHORTEST and cell in self.numbers:
            cell = self.rows[self.numbers[cell]][self.column][0].as_py()
        return image_bytes(cell, self.folder, where, text=self.text)


def pictures_of(rows: Any, column: str, folder: Path, text: str, numbers: Mapping[str, int], source: str) -> Pictures:
    """The images of a table's own column."""
    return Pictures(rows.select_columns([column]).with_format("arrow"), column, folder, text, numbers, source)


def joined_pictures(source: str, root: Path, split: str, config: str | None, column: str, text: str) -> Pictures:
    """The images of a table of their own, by its column ``id``.

    Raises:
        UsageError: as `local_table`; the table lacks a column, or an id comes twice.
    """
    rows, folder = local_table(source, root, split, config)
    what = f"{source}, configuration {config!r}," if config else source
    if absent := {"id", column} - set(rows.column_names):
        raise UsageError(f"{what} has no column {sorted(absent)[0]!r}; images that are joined need id and {column}")
    ids = [str(one) for one in rows["id"]]
    numbers = {key: number for number, key in enumerate(ids)}
    if len(numbers) < len(ids):
        raise UsageError(f"{what} holds an image id twice; download it again")
    return pictures_of(rows, column, folder, text, numbers, what)


def with_image(rows: Any, column: str) -> Sequence[bool]:
    """Whether each row has an image; the images themselves are not read."""
    import pyarrow as pa
    import pyarrow.compute as pc

    whole = rows if rows._indices is None else rows.flatten_indices()
    cells = whole.data.column(column)
    absent = pc.is_null(cells)
    if pa.types.is_struct(cells.type):
        parts = [pc.is_null(pc.struct_field(cells, name)) for name in ("bytes", "path")]
        absent = pc.or_(absent, pc.and_(*parts))
    elif pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type):
        absent = pc.or_kleene(absent, pc.equal(pc.binary_length(cells), 0))
    return [not one for one in absent.to_pylist()]
