"""What files a dataset needs, which of them are there, and what is wrong with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.data.needed import Needed
from bench.data.readers import load, reader_of
from bench.errors import UsageError


@dataclass(frozen=True)
class Presence:
    """A dataset's files: what is needed, and if all of it is there, what is wrong with it and what to know of it."""

    name: str
    needed: tuple[Needed, ...]
    samples: int = 0
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether a run could begin."""
        return not self.faults and all(one.present for one in self.needed)


def presence(name: str, row: Mapping[str, Any], root: Path) -> Presence:
    """Look for a dataset's files, and read it if they are all there.

    Args:
        name: of the dataset.
        row: as in a suite.
        root: the data root.
    """
    needed = tuple(files_needed(name, row, root))
    if not all(one.present for one in needed):
        return Presence(name, needed)
    try:
        dataset = load(name, row, root)
    except UsageError as error:
        return Presence(name, needed, faults=(str(error),))
    files = {sample.image for sample in dataset.samples if isinstance(sample.image, Path)}
    absent = sorted(str(file) for file in files if not file.is_file())
    faults = (f"{len(absent)} of {len(files)} image files are missing, such as {absent[0]}",) if absent else ()
    return Presence(name, needed, len(dataset.samples), faults, dataset.notes)


def files_needed(name: str, row: Mapping[str, Any], root: Path) -> list[Needed]:
    """Every file and folder that a dataset's row needs, as its format says.

    Raises:
        UsageError: the row's format is not known.
    """
    return reader_of(name, row).files(row, root)
