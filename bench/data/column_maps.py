"""Column maps: what the columns of widely published tables mean (`column_maps.toml`). Never imports torch."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources

from bench import registry


@dataclass(frozen=True)
class ColumnMap:
    """One row of the file, which says what its keys mean."""

    name: str
    about: str
    task: str
    columns: Mapping[str, str]
    hub: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    split: str | None = None
    config: str | None = None
    images_config: str | None = None
    image_text: str = "path"
    image_optional: bool = False
    empty: tuple[str, ...] = ()
    template: str | None = None
    prompt: str = ""
    prompt_suffix: str = ""
    scoring: str = "annotators"

    @property
    def spec(self) -> str:
        """How a command names such a dataset."""
        if self.hub:
            return f"hf:{self.hub[0]}"
        return f"tsv:{self.files[0]}.tsv" if self.files else f"FORMAT:PLACE?column_map={self.name}"


@cache
def column_maps() -> dict[str, ColumnMap]:
    """All of them by name."""
    raw = tomllib.loads(resources.files("bench.data").joinpath("column_maps.toml").read_text(encoding="utf-8"))
    return {name: _read(name, row) for name, row in raw.items()}


def _read(name: str, row: Mapping[str, object]) -> ColumnMap:
    lists = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    return ColumnMap(name, **lists)  # type: ignore[arg-type]


def column_map(name: str | None) -> ColumnMap | None:
    """One by its name; None for none.

    Raises:
        UsageError: there is none of that name.
    """
    if name is not None and name not in column_maps():
        raise registry.unknown("column map", name, column_maps())
    return None if name is None else column_maps()[name]


def of_hub(identifier: str) -> str | None:
    """The name of the column map of a dataset of the hub."""
    return next((name for name, one in column_maps().items() if identifier in one.hub), None)


def of_file(stem: str) -> str | None:
    """The name of the column map of a TSV file that is called so, without its ending."""
    patterns = ((name, pattern) for name, one in column_maps().items() for pattern in one.files)
    return next((name for name, pattern in patterns if fnmatchcase(stem, pattern)), None)
