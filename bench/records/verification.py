"""What was found of a run when its evidence was looked at again; `bench.verify` looks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

VERIFIED = "verified"
SHOWN = 3  # samples named in a line


@dataclass(frozen=True)
class Mismatch:
    """One thing that is not as recorded.

    Attributes:
        run: the run's directory.
        sample_id: of the sample; "" for what concerns the whole run.
        radius: radius as in `RunHeader.radii`; 0 for clean.
        field: "distance", "range", "pixels", "prediction", "score", "image", "record", "weights.encoder", ...
    """

    run: str
    sample_id: str
    radius: float
    field: str
    recorded: Any
    recomputed: Any

    def __str__(self) -> str:
        place = f"sample {self.sample_id} at {self.radius:g}: " if self.sample_id else ""
        return f"{self.run}: {place}{self.field} is {self.recorded!r} in the records and {self.recomputed!r} recomputed"


@dataclass(frozen=True)
class Verification:
    """What was verified of one run, and what was not.

    Attributes:
        samples: that the run is to score.
        clean: clean answers that were recomputed.
        images: adversarial images that were measured and asked about again.
        pngs: 8-bit PNGs that were compared with their images, and asked about where that was recorded.
        originals: saved clean images that were compared with the data.
        unkept: attacks whose image is not kept, since they made nothing worse or a later one did: not verified.
        errors: samples whose clean or last attack's record is an error: not verified.
        missing: samples that the run has not come to: not verified.
        recorded: answers of an endpoint, which were taken as they are recorded and scored again.
        surrogate: whether the attacks were made on another encoder, whose weights are not verified.
        mismatches: what is not as recorded.
    """

    run: str
    samples: int
    clean: int
    images: int
    pngs: int
    originals: int
    unkept: int
    errors: tuple[str, ...]
    missing: tuple[str, ...]
    surrogate: bool
    mismatches: tuple[Mismatch, ...]
    recorded: int = 0

    @property
    def outcome(self) -> str:
        """In a word or two: verified, incomplete (where samples lack a record or have an error), or the mismatches."""
        if self.mismatches:
            return f"{len(self.mismatches)} mismatch{'es' * (len(self.mismatches) > 1)}"
        return "incomplete" if self.errors or self.missing else VERIFIED

    def __str__(self) -> str:
        images = _count(self.images, "adversarial image")
        done = [f"{self.clean} of {self.samples} clean answers", f"{images} with what the model answers"]
        done += [_count(self.pngs, "PNG")] if self.pngs else []
        done += [_count(self.originals, "saved clean image")] if self.originals else []
        left = [f"{_count(self.unkept, 'attack')} that left no image (nothing got worse, or a later one did it)"]
        left += [f"{_count(len(self.errors), 'sample')} with errors ({_some(self.errors)})"] if self.errors else []
        left += (
            [f"{_count(len(self.missing), 'sample')} without a record ({_some(self.missing)})"] if self.missing else []
        )
        left += ["the surrogate's weights"] if self.surrogate else []
        left += [f"{_count(self.recorded, 'answer')} of an endpoint, which is not asked again"] if self.recorded else []
        return f"{self.outcome}: {self.run}: {', '.join(done)}; not verified: {', '.join([*left, 'losses and times'])}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
