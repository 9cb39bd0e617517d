"""Where the shards of a run lie: ``RUN/shards/K-of-N``, each a run directory of its own that one process writes.

Shards share no file and no lock. Until they are joined the run is their union (`bench.records.reading.load_run`), and
has no ``run.json``.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from bench.records.files import RecordsError, unlinked

FOLDER = "shards"
_NAME = re.compile(r"(\d+)-of-(\d+)")


@dataclass(frozen=True, order=True)
class Shard:
    """Every ``count``-th sample of a run, from that at ``number`` on, which is below ``count``."""

    number: int
    count: int

    def of(self, total: int) -> range:
        """Which of so many samples, by their place."""
        return range(self.number, total, self.count)

    def __str__(self) -> str:
        return f"part {self.number + 1} of {self.count}"

    def folder(self, run: Path) -> Path:
        """Where it lies in a run's directory."""
        return run / FOLDER / f"{self.number}-of-{self.count}"


def shards_in(run: Path) -> list[Shard]:
    """The shards that were begun in a run's directory, in order.

    Raises:
        RecordsError: If they are of different counts, or one is a link.
    """
    folder = unlinked(run / FOLDER, run)
    names = [_NAME.fullmatch(path.name) for path in folder.iterdir()] if folder.is_dir() else []
    found = sorted(Shard(int(name[1]), int(name[2])) for name in names if name and unlinked(folder / name[0], run))
    if len({shard.count for shard in found}) > 1:
        raise RecordsError(f"{folder} holds shards of different counts; delete those of one of them")
    return found


def run_of(directory: Path) -> Path:
    """The run to which a directory with a ``run.json`` belongs: itself, unless it is a shard."""
    is_shard = directory.parent.name == FOLDER and _NAME.fullmatch(directory.name)
    return directory.parents[1] if is_shard else directory
