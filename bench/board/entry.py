"""An entry of the board: what someone claims of one encoder, run by run, and where the evidence lies.

One JSON file. Everything in it can be recomputed from the evidence: see `bench.board.check`.
"""

import json
import math
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from bench.errors import UsageError
from bench.records import RecordsError, RunHeader, write_atomically
from bench.records.files import read_inside
from bench.records.ranges import bounds

VERSION = 1
SLACK = 1e-6  # of a mean beside its interval: sums in floating point
IMAGES, RECORDS = "images", "records"


class Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a reader should know of an encoder; empty where its submitter did not say.

    Attributes:
        title: What the board calls it.
        submitter: Who gets the credit for what the runs found.
        training: What it was trained on.
        parameters: Of the image encoder, in millions; None where not said.
        licence: Of the weights.
        link: To a paper, a model card or code; http(s) only.
    """

    title: str = ""
    submitter: str = ""
    training: str = ""
    parameters: float | None = None
    licence: str = ""
    link: str = ""

    def __post_init__(self) -> None:
        if self.link and not self.link.startswith(("https://", "http://")):
            raise UsageError(f"the link {self.link!r} of a card must begin with https:// or http://")
        if self.parameters is not None and not 0 < self.parameters < math.inf:
            raise UsageError(f"parameters of a card is {self.parameters}; give millions, such as 304")


class Score(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A claimed number at a radius (0: clean), with its 95 % interval."""

    radius: float
    value: float
    low: float
    high: float
    n: int


class Claim(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One run of an entry.

    Attributes:
        header: The run's header as JSON data, without the machine's paths.
        scores: Clean and at each radius.
        samples: Ids of the scored samples, in the order of the lists in `left`.
        groups: Their groups, which intervals are clustered by.
        left: Radius, as text, -> what each sample is left with there.
        kind: "images" where the evidence holds the images, "records" where it is the records alone.
        place: Where the evidence lies: the run's folder, relative to the entry's file.
        files: Path inside that folder -> sha256.
    """

    header: dict[str, Any]
    scores: tuple[Score, ...]
    samples: tuple[str, ...]
    groups: tuple[str, ...]
    left: dict[str, tuple[float, ...]]
    kind: str
    place: str
    files: dict[str, str]


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What someone claims of one encoder."""

    version: int
    card: Card
    claims: tuple[Claim, ...]


@dataclass(frozen=True)
class Placed:
    """An entry and the file it was read from.

    Attributes:
        path: The file.
        digest: sha256 of its content.
        entry: What it says.
        headers: Of its claims, in their order.
    """

    path: Path
    digest: str
    entry: Entry
    headers: tuple[RunHeader, ...]

    @property
    def name(self) -> str:
        """Legible, and unique by the digest."""
        plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in self.path.stem)
        return f"{plain[:60]}-{self.digest[:6]}"


def read_entry(path: Path) -> Placed:
    """The entry in a file.

    Raises:
        RecordsError: It cannot be read, or is no entry; names the file, and the field where one is wrong.
    """
    text = read_inside(path)
    try:
        entry = msgspec.json.decode(text, type=Entry)
        if entry.version != VERSION:
            raise RecordsError(f"version is {entry.version}, and this one reads {VERSION}")
        if not entry.claims:
            raise RecordsError("it claims nothing")
        headers = tuple(RunHeader.from_json(json.dumps(claim.header)) for claim in entry.claims)
        for claim, header in zip(entry.claims, headers, strict=True):
            _require_sound(claim, header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, RecordsError, UsageError) as error:
        raise RecordsError(f"{path} is no entry of the board: {error}") from error
    return Placed(path, sha256(text).hexdigest(), entry, headers)


def _require_sound(claim: Claim, header: RunHeader) -> None:
    """A claim must agree with itself, and its numbers with the metric; what its evidence says is another matter."""
    if header.partial:
        raise RecordsError(f"it claims a partial run ({header.partial}); only whole runs enter the board")
    radii = [score.radius for score in claim.scores]
    if not set(radii) <= {0.0, *header.radii} or len(set(radii)) < len(radii):
        raise RecordsError(f"it claims radii that are not the run's, or one twice: {', '.join(map(str, radii))}")
    if {f"{radius:g}" for radius in radii} != claim.left.keys():
        raise RecordsError(f"it claims radii that are not the run's: {', '.join(sorted(claim.left))}")
    low, high, slack = bounds(header)
    for score in claim.scores:
        ordered = low - slack <= score.low <= score.value + SLACK and score.value - SLACK <= score.high <= high + slack
        counted = len(claim.samples) <= score.n <= header.n_samples
        if not ordered or not counted or not math.isfinite(score.high - score.low):
            raise RecordsError(
                f"the score at {score.radius:g} is {score.value:g} [{score.low:g}, {score.high:g}], n = {score.n}; "
                f"{header.metric!r} ranges from {low:g} to {high:g}, and {len(claim.samples)} samples are named"
            )
    for at, scores in claim.left.items():
        if wrong := [score for score in scores if not low - slack <= score <= high + slack]:
            raise RecordsError(f"a sample is left with {wrong[0]:g} at {at}; {header.metric!r} is {low:g} to {high:g}")
    sizes = {len(claim.samples), len(claim.groups), *(len(scores) for scores in claim.left.values())}
    if len(sizes) != 1 or len(set(claim.samples)) != len(claim.samples):
        raise RecordsError("its lists of samples, groups and scores are not of one length, or name a sample twice")
    if claim.kind not in (IMAGES, RECORDS):
        raise RecordsError(f"kind is {claim.kind!r}; it is {IMAGES!r} or {RECORDS!r}")


def write_entry(path: Path, entry: Entry) -> None:
    """Write an entry as JSON.

    Raises:
        RecordsError: The file cannot be written.
    """
    write_atomically(path, msgspec.json.encode(entry).decode() + "\n")
