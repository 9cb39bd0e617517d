"""Checking an entry against its evidence: nothing that it claims is taken on trust."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bench.board.entry import IMAGES, Claim, Placed
from bench.board.pack import claim_of, evidence
from bench.errors import UsageError
from bench.records import RecordsError, Run, RunHeader
from bench.records.header import IDENTITY, differences
from bench.records.reading import load_run
from bench.records.verification import VERIFIED, Verification
from bench.trust.places import inside

Recompute = Callable[[Run], Verification]
TOLERANCE = 1e-6  # of a claimed mean or bound: sums in floating point


@dataclass(frozen=True)
class Finding:
    """What came of one claim.

    Attributes:
        claim: such as "vqa / mini-vqa, apgd".
        refusals: what is not as claimed; none: accepted.
        verification: of the images; None where the evidence is the records alone.
    """

    claim: str
    refusals: tuple[str, ...]
    verification: Verification | None

    @property
    def accepted(self) -> bool:
        """Whether the claim is borne out."""
        return not self.refusals

    @property
    def lines(self) -> tuple[str, ...]:
        """What came of it in words: a line per refusal, or one."""
        if not self.accepted:
            return tuple(f"refused: {self.claim}: {reason}" for reason in self.refusals)
        shown = "records alone: no image was saved" if self.verification is None else str(self.verification)
        return (f"accepted: {self.claim}: {shown}",)


def check_entry(placed: Placed, recompute: Recompute, root: Path | None = None) -> list[Finding]:
    """Check every claim of an entry.

    Args:
        placed: The entry.
        recompute: Verifies a run from its images: `bench.verify.verify`.
        root: The folder that the places of the evidence are relative to; by default the entry's own.
    """
    root = root or placed.path.parent
    pairs = zip(placed.entry.claims, placed.headers, strict=True)
    return [_check(claim, header, root, recompute) for claim, header in pairs]


def _check(claim: Claim, header: RunHeader, root: Path, recompute: Recompute) -> Finding:
    name = f"{header.task} / {header.dataset}, {header.attack}"
    try:
        directory = _folder(claim, root)
        refusals = list(_files(claim, directory))
        if refusals:
            return Finding(name, tuple(refusals), None)
        run = load_run(directory)
        refusals += _claimed(claim, header, run)
        verification = recompute(run) if claim.kind == IMAGES else None
    except (RecordsError, UsageError) as error:
        return Finding(name, (str(error),), None)
    if verification is not None and verification.outcome != VERIFIED:
        refusals += [str(mismatch) for mismatch in verification.mismatches] or [str(verification)]
    return Finding(name, tuple(refusals), verification)


def _folder(claim: Claim, root: Path) -> Path:
    """Where a claim's evidence lies: relative to the root, and perhaps above it, for runs stay where they are."""
    if PurePosixPath(claim.place).is_absolute() or "\0" in claim.place:
        raise UsageError(
            f"the place of its evidence, {claim.place!r}, is no relative path; give it relative to the entry"
        )
    folder = (root / claim.place).resolve()
    if not folder.is_dir():
        raise UsageError(f"no evidence at {folder}; fetch it, or say where it lies with --evidence")
    return folder


def _files(claim: Claim, directory: Path) -> Iterator[str]:
    """Files that are missing, changed, or were not named."""
    for name in claim.files:
        inside(directory, name, "the entry's file")
    there = evidence(directory)
    for name in sorted(claim.files.keys() | there.keys()):
        if name not in there:
            yield f"{name} is missing from the evidence"
        elif name not in claim.files:
            yield f"{name} is in the evidence and not in the entry"
        elif there[name] != claim.files[name]:
            yield f"{name} has changed: sha256 {there[name]}, claimed {claim.files[name]}"


def _claimed(claim: Claim, header: RunHeader, run: Run) -> Iterator[str]:
    """What the entry says otherwise than the records."""
    for field, said, found in differences(header, run.header, (*IDENTITY, "status", "checks")):
        yield f"{field} is {found!r} in the evidence and {said!r} in the entry"
    if run.header.partial:
        yield f"the run is partial ({run.header.partial})"
    actual = claim_of(run, run.directory)
    if (claim.samples, claim.groups) != (actual.samples, actual.groups):
        yield "its samples are not those of the records"
    elif claim.left != actual.left:
        yield "what samples are left with is not what the records say"
    if claim.kind != actual.kind:
        yield f"its evidence is {actual.kind}, not {claim.kind}"
    recomputed = {score.radius: score for score in actual.scores}
    for score in claim.scores:
        true = recomputed[score.radius]
        said, found = ((s.value, s.low, s.high, float(s.n)) for s in (score, true))
        if any(abs(a - b) > TOLERANCE for a, b in zip(said, found, strict=True)):
            yield f"the score at {score.radius:g} is {true.value:.2f} by the records, and {score.value:.2f} is claimed"
