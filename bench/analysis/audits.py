"""Audits that lie beside runs: what `bench audit` found, read again."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import msgspec

from bench.records import RecordsError, Run
from bench.records.files import explained, unlinked
from bench.records.ranges import bounds

FILE = "audit.json"
Count = Annotated[int, msgspec.Meta(ge=0)]


class AuditFinding(msgspec.Struct, frozen=True):
    """One way in which a stronger attack might win, as it was written."""

    name: str
    wins: bool
    tried: Count
    broken: Count
    most: float | None = None


class AuditFile(msgspec.Struct, frozen=True):
    """An audit of one run at one radius, as it was written."""

    radius: float
    score: float
    robust: Count
    seconds: Annotated[float, msgspec.Meta(ge=0)]
    evaluations: Count
    findings: tuple[AuditFinding, ...]

    @property
    def wins(self) -> tuple[str, ...]:
        """Which of them say that a stronger attack could still win."""
        return tuple(finding.name for finding in self.findings if finding.wins)

    @property
    def tried(self) -> int:
        """Robust samples that were attacked again."""
        return max((finding.tried for finding in self.findings if finding.most is not None), default=0)

    @property
    def most(self) -> float | None:
        """Points of the score that any one of the attacks tried could take at most, with 97.5 % confidence."""
        return max((finding.most for finding in self.findings if finding.most is not None), default=None)


@dataclass(frozen=True)
class Audited:
    """A run with its audit."""

    run: Run
    audit: AuditFile


def audits(runs: Iterable[Run]) -> list[Audited]:
    """The runs that were audited.

    Raises:
        RecordsError: an audit cannot be read, or is of a radius that its run does not have.
    """
    return [Audited(run, audit) for run in runs if (audit := _beside(run)) is not None]


def _beside(run: Run) -> AuditFile | None:
    path = unlinked(run.directory / FILE, run.directory)
    with explained("read", path):
        if not path.is_file():
            return None
        text = path.read_bytes()
    try:
        found = msgspec.json.decode(text, type=AuditFile)
    except msgspec.MsgspecError as error:
        raise RecordsError(f"{path} is no audit ({error}); make it again with `bench audit {run.directory}`") from error
    if found.radius not in run.header.radii:
        raise RecordsError(f"{path} is of radius {found.radius:g}, which the run does not have; make it again")
    low, high, slack = bounds(run.header)
    points = [finding.most for finding in found.findings if finding.most is not None]
    if not low - slack <= found.score <= high + slack or not all(0 <= most <= high + slack for most in points):
        raise RecordsError(f"{path} has scores beyond those of {run.header.metric!r}; make it again")
    return found
