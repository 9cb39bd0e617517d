"""The gallery: clean image, adversarial image and magnified perturbation, with what the model said of each."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import UsageError
from bench.records import CLEAN, Record, Run
from bench.records.files import explained
from bench.records.images import FOLDER, path_of, read_image
from bench.records.worst import WorstSoFar, eps_label, kept_records

if TYPE_CHECKING:
    from torch import Tensor

LOST, STOOD = "lost before any attack", "stood"


@dataclass(frozen=True)
class Shown:
    """One sample of one run in the gallery.

    Attributes:
        outcome: "fell at 2/255", "stood", or "lost before any attack".
        clean: the record of the clean image.
        attacked: the record shown beside it: the worst kept one, or the last attack that changed nothing; None where
            no attack was needed.
        kept: whether its image is there.
    """

    run: Run
    sample_id: str
    outcome: str
    clean: Record
    attacked: Record | None
    kept: bool


@dataclass(frozen=True)
class Card:
    """What a page shows of one sample; pictures are file names under the report's ``images``.

    Attributes:
        prompt: the question; empty where a task asks none.
        expected: the reference answer, class, caption or target.
        magnified: by how much the perturbation is multiplied; grey is no change.
    """

    shown: Shown
    prompt: str
    expected: str
    clean_image: str
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


def cards(run: Run, most: int, images: Path, prefix: str, data_root: Path | None = None) -> list[Card]:
    """The cards of one run; their pictures are written to ``images``.

    Raises:
        UsageError: the run's data or encoder cannot be loaded, or the data are not those of the run.
    """
    from bench.config.reload import config_of
    from bench.running.load import prepare

    setup = prepare(config_of(run.header, data_root=data_root))
    if setup.header.dataset_fingerprint != run.header.dataset_fingerprint:
        raise UsageError(f"{run.directory}: the dataset {run.header.dataset!r} is not the one that was run")
    rows = {sample.id: row for row, sample in enumerate(setup.samples)}
    made = []
    for place, shown in enumerate(choose(run, most)):
        row = rows[shown.sample_id]
        sample, clean = setup.samples[row], setup.images[[row]][0].cpu()
        pictures = _save(clean, shown, images, f"{prefix}-{place}")
        made.append(Card(shown, sample.prompt, sample.references[0], *pictures))
    return made


def _save(clean: "Tensor", shown: Shown, images: Path, name: str) -> tuple[str, str | None, str | None, float]:
    """Write a sample's pictures, in 8 bits; their names, and by how much the perturbation is multiplied."""
    from torch import from_numpy
    from torchvision.transforms.functional import to_pil_image

    images.mkdir(parents=True, exist_ok=True)

    def write(image: "Tensor", kind: str) -> str:
        with explained("write", images / f"{name}-{kind}.png"):
            to_pil_image((image.clamp(0, 1) * 255).round().byte()).save(images / f"{name}-{kind}.png", optimize=True)
        return f"{name}-{kind}.png"

    first = write(clean, "clean")
    if not shown.kept or shown.attacked is None:
        return first, None, None, 0.0
    path = path_of(shown.run.directory / FOLDER, shown.sample_id, shown.attacked.radius)
    adversarial = from_numpy(read_image(path).pixels)
    if adversarial.shape != clean.shape:
        raise UsageError(
            f"the image of sample {shown.sample_id!r} is {tuple(adversarial.shape)} and its clean image now "
            f"{tuple(clean.shape)}; see `bench verify {shown.run.directory}`"
        )
    magnified = 0.5 / max(float((adversarial - clean).abs().max()), 1e-9)
    perturbation = 0.5 + magnified * (adversarial - clean)
    return first, write(adversarial, "adversarial"), write(perturbation, "perturbation"), magnified


def _outcomes(run: Run) -> Iterator[Shown]:
    so_far = WorstSoFar(run.header.worst)
    for record in kept_records(run.header, run.records).values():
        so_far.add(record)
    attacks: dict[str, Record] = {r.sample_id: r for r in run.records if r.step != CLEAN and r.error is None}
    for clean in run.records:
        if clean.step != CLEAN or clean.error is not None:
            continue
        sample = clean.sample_id
        if (kept := so_far.at(sample, math.inf)) is not None:
            outcome = f"fell at {eps_label(kept.radius, run.header.norm)}"
            yield Shown(run, sample, outcome, clean, kept, _exists(run, kept))
        elif sample in attacks:
            yield Shown(run, sample, STOOD, clean, attacks[sample], False)
        else:
            yield Shown(run, sample, LOST, clean, None, False)


def _exists(run: Run, record: Record) -> bool:
    return path_of(run.directory / FOLDER, record.sample_id, record.radius).exists()


def outcomes(cards: Sequence[Card]) -> list[str]:
    """The outcomes that occur, falls first."""
    return sorted({card.shown.outcome for card in cards}, key=lambda o: (o == LOST, o == STOOD, o))
