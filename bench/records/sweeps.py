"""What was asked for together: ``OUTPUT/sweeps/NAME.json``, written by the one command that drives the runs.

It says what will be run and what failed before there was a record; what is done is seen in the runs themselves.
"""

from hashlib import sha256
from pathlib import Path
from typing import Annotated

import msgspec

from bench.records.files import RecordsError, explained, read_inside, unlinked, write_atomically

FOLDER = "sweeps"


class Planned(msgspec.Struct, frozen=True):
    """One run of a sweep.

    Attributes:
        directory: relative to the output folder.
        samples: how many it scores at most.
        passes: gradient evaluations that all attack steps at all radii take of one sample at most.
        failed: why it could not be carried out; None if it could, or has not ended.
    """

    directory: str
    samples: Annotated[int, msgspec.Meta(ge=0)]
    passes: Annotated[int, msgspec.Meta(ge=0)]
    failed: str | None = None


class Sweep(msgspec.Struct, frozen=True):
    """Runs that one command asked for.

    Attributes:
        began: ISO 8601.
        ended: ISO 8601; None while the command is at work, or after it was killed.
        host: where the command was given.
        process: its process id there.
        engine: as of ``--on``.
        runs: in order.
    """

    began: str
    ended: str | None
    host: str
    process: int
    engine: str
    runs: tuple[Planned, ...]


def write_sweep(output: Path, sweep: Sweep) -> None:
    """Write a sweep; one of the same runs takes the place of an earlier one.

    Raises:
        RecordsError: If the system refuses.
    """
    folder = unlinked(output / FOLDER, output)
    with explained("create", folder):
        folder.mkdir(parents=True, exist_ok=True)
    name = sha256("\0".join(run.directory for run in sweep.runs).encode()).hexdigest()[:12]
    text = msgspec.json.format(msgspec.json.encode(sweep)).decode() + "\n"
    write_atomically(unlinked(folder / f"{name}.json", output), text)


def read_sweeps(output: Path) -> list[Sweep]:
    """The sweeps of an output folder, the earliest first.

    Raises:
        RecordsError: If one is damaged.
    """
    found = []
    for path in sorted((output / FOLDER).glob("*.json")):
        try:
            found.append(msgspec.json.decode(read_inside(unlinked(path, output)), type=Sweep))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RecordsError(f"{path}: {error}; delete it: only `bench status` reads it") from error
    return sorted(found, key=lambda sweep: sweep.began)
