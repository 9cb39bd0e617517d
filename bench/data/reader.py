"""What a dataset format is: one `Reader` says all of it. Never imports torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bench.data.needed import Needed, first_present, needed_at
from bench.data.settings import PATH, Setting
from bench.errors import UsageError

if TYPE_CHECKING:
    from tasks.base import Dataset

Row = Mapping[str, Any]


class Find(Protocol):
    """How a format finds out what a place holds."""

    def __call__(self, root: Path, place: Path, given: Row) -> dict[str, Any]:
        """The settings of a row for what lies at ``root / place``, without those in ``given``.

        Raises:
            UsageError: there is nothing, or it does not show what is what.
        """


@dataclass(frozen=True)
class Reader:
    """A dataset format; entry points of the group "bench.readers" add others.

    Attributes:
        about: what it reads, in a line.
        settings: the keys of a row in this format, beside those of every row (`bench.data.settings.OF_EVERY_ROW`).
            Paths are relative to the data root.
        read: ``read(name, root, **settings)`` gives the dataset, its samples in the order of the files. It is called
            with settings that are known and of their kind, all required ones among them.
        tasks: the tasks that can ask what a row describes.
        find: makes a row out of a place, so that ``FORMAT:PLACE`` names a dataset; None: only rows can.
        needed: what must lie under the data root for a row; by default whatever its paths name.
    """

    about: str
    settings: Mapping[str, Setting]
    read: "Callable[..., Dataset]"
    tasks: Callable[[Row], tuple[str, ...]]
    find: Find | None = None
    needed: Callable[[Row, Path], list[Needed]] | None = None

    @property
    def reads_files(self) -> bool:
        """Whether its datasets lie in files."""
        return any(setting.kind is PATH for setting in self.settings.values())

    def paths(self, row: Row) -> dict[str, str | list[str]]:
        """The paths in a row, by key."""
        found = {key: row[key] for key, setting in self.settings.items() if setting.kind is PATH and key in row}
        return {key: value for key, value in found.items() if value not in self.settings[key].words}

    def files(self, row: Row, root: Path) -> list[Needed]:
        """Every file and folder that a row needs, and whether it is there."""
        if self.needed is not None:
            return self.needed(row, root)
        return [needed_at(place, root) for place in self.paths(row).values()]

    def resolved(self, row: Row, root: Path) -> dict[str, Any]:
        """The row with one path where it lists the names that a file goes by: one that is there, else the first."""
        several = {key: names for key, names in self.paths(row).items() if isinstance(names, list)}
        return {**row, **{key: first_present(names, root) or names[0] for key, names in several.items()}}


def place_is(key: str) -> Find:
    """A `Find` for formats whose place is the value of one key, a file or folder."""

    def find(root: Path, place: Path, given: Row) -> dict[str, Any]:
        existing(root, place)
        return {key: str(place)}

    return find


def existing(root: Path, place: Path) -> Path:
    """``root / place``.

    Raises:
        UsageError: there is nothing.
    """
    if not (root / place).exists():
        raise UsageError(f"no dataset at {root / place}; fix the path, or --data-root")
    return root / place
