"""The gallery: clean image, adversarial image and magnified perturbation, with what the model said of each.

Drawn from records and saved images alone: no data, model or suite is needed.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from operator import attrgetter
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from bench.records import CLEAN, Record, RecordsError, Run
from bench.records.files import explained
from bench.records.images import FOLDER, path_of, read_image
from bench.records.samples import Asked
from bench.records.worst import WorstSoFar, eps_label, kept_records

ROBUST, BROKEN, NOT_ATTACKED, ERROR = "robust", "broken", "not attacked", "error"
Pixels = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Shown:
    """One sample of one run in the gallery.

    Attributes:
        outcome: "broken at 2/255", "robust", or "not attacked": nothing was left to lose.
        clean: the record of the clean image.
        attacked: the record shown beside it: the worst kept one, or the last attack that changed nothing; None where
            no attack was needed.
        kept: whether that record's image was saved.
    """

    run: Run
    sample_id: str
    outcome: str
    clean: Record
    attacked: Record | None
    kept: bool


@dataclass(frozen=True)
class Card:
    """What a page shows of one sample; pictures are file names under the report's ``images``, None where there is none.

    Attributes:
        asked: question and references; None for runs from before they were kept.
        magnified: by how much the perturbation is multiplied; grey is no change.
    """

    shown: Shown
    asked: Asked | None
    clean_image: str | None
    adversarial_image: str | None
    perturbation_image: str | None
    magnified: float


def choose(run: Run, most: int) -> list[Shown]:
    """The first samples of each outcome in the order of the data, in turn, ``most`` altogether: nothing is picked."""
    by_outcome: dict[str, list[Shown]] = {}
    for shown in _outcomes(run):
        by_outcome.setdefault(shown.outcome, []).append(shown)
    dealt = [one for turn in zip_longest(*by_outcome.values()) for one in turn if one is not None]
    return dealt[:most]


def has_images(run: Run) -> bool:
    """Whether a run kept its adversarial images."""
    return (run.directory / FOLDER).is_dir()


def cards(run: Run, most: int, images: Path, prefix: str, asked: Mapping[str, Asked]) -> list[Card]:
    """The cards of one run; their pictures are written to ``images``, with names that begin with ``prefix``.

    Raises:
        RecordsError: a saved image cannot be read, or a picture cannot be written.
    """
    with explained("create", images):
        images.mkdir(parents=True, exist_ok=True)
    made = []
    for place, shown in enumerate(choose(run, most)):
        pictures = _pictures(shown, images, f"{prefix}-{place}")
        made.append(Card(shown, asked.get(shown.sample_id), *pictures))
    return made


def _pictures(shown: Shown, images: Path, name: str) -> tuple[str | None, str | None, str | None, float]:
    """Write a sample's pictures, in 8 bits; their names, and by how much the perturbation is multiplied."""
    folder = shown.run.directory / FOLDER
    clean = _saved(folder, shown.sample_id, 0.0)
    radius = shown.attacked.radius if shown.attacked is not None and shown.kept else None
    adversarial = None if radius is None else _saved(folder, shown.sample_id, radius)
    first = None if clean is None else _write(clean, images / f"{name}-clean.png")
    if adversarial is None:
        return first, None, None, 0.0
    second = _write(adversarial, images / f"{name}-adversarial.png")
    if clean is None:
        return None, second, None, 0.0
    if clean.shape != adversarial.shape:
        raise RecordsError(
            f"the saved images of sample {shown.sample_id!r} are {clean.shape} clean and {adversarial.shape} attacked; "
            f"see `bench verify {shown.run.directory}`"
        )
    change = adversarial - clean
    magnified = 0.5 / max(float(np.abs(change).max()), 1e-9)
    return first, second, _write(0.5 + magnified * change, images / f"{name}-perturbation.png"), magnified


def _saved(folder: Path, sample_id: str, radius: float) -> Pixels | None:
    """An image (3, H, W) in [0, 1] as it was saved; None where there is none."""
    path = path_of(folder, sample_id, radius)
    if not path.exists():
        return None
    pixels = read_image(path).pixels
    if pixels.ndim != 3 or pixels.shape[0] != 3 or not pixels.size:
        raise RecordsError(f"{path} holds a tensor of shape {pixels.shape}, not an image of 3 x height x width")
    return np.asarray(pixels, np.float32)


def _write(image: Pixels, path: Path) -> str:
    """Write an image (3, H, W) as PNG; returns its name."""
    pixels = (np.nan_to_num(image).clip(0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0)
    with explained("write", path):
        Image.fromarray(pixels).save(path, optimize=True)
    return path.name


def _outcomes(run: Run) -> Iterator[Shown]:
    so_far = WorstSoFar(run.header.worst)
    for record in sorted(kept_records(run.header, run.records).values(), key=attrgetter("radius")):
        so_far.add(record)
    attacks = {r.sample_id: r for r in run.records if r.step != CLEAN and r.error is None}
    for clean in run.records:
        if clean.step != CLEAN or clean.error is not None:
            continue
        sample = clean.sample_id
        if (kept := so_far.at(sample, math.inf)) is not None:
            outcome = f"{BROKEN} at {eps_label(kept.radius, run.header.norm)}"
            yield Shown(run, sample, outcome, clean, kept, _is_saved(run, kept))
        elif sample in attacks:
            yield Shown(run, sample, ROBUST, clean, attacks[sample], False)
        else:
            yield Shown(run, sample, NOT_ATTACKED, clean, None, False)


def _is_saved(run: Run, record: Record) -> bool:
    return path_of(run.directory / FOLDER, record.sample_id, record.radius).exists()


def outcomes(cards: Sequence[Card]) -> list[str]:
    """The outcomes that occur, broken ones first."""
    return sorted({card.shown.outcome for card in cards}, key=lambda o: (o == NOT_ATTACKED, o == ROBUST, o))
