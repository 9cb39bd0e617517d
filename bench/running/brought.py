"""Images that were made elsewhere, each seen to lie in the threat model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from attacks.threat import ThreatModel
from bench.data.bank import Images
from bench.data.brought import SHOWN, digest, read_folder
from bench.errors import UsageError
from bench.running.units import UNITS
from tasks.base import Sample

BATCH = 64


@dataclass(frozen=True)
class Brought:
    """Images made elsewhere.

    Attributes:
        images: by sample, as the samples are ordered.
        digest: of all.
    """

    images: Images
    digest: str


def read_brought(
    folder: Path, samples: Sequence[Sample], clean: Images, threat: ThreatModel, formats: Sequence[str]
) -> Brought:
    """Read the images of samples, and measure each against its clean image.

    Raises:
        UsageError: as of `read_folder`; or images have another size than the clean ones, or left the threat model;
            names them.
    """
    pixels = read_folder(folder, samples, formats=formats)
    sizes = list(dict.fromkeys(f"{width} x {height}" for height, width in clean.sizes))
    if not isinstance(clean.pixels, Tensor) or pixels.shape != clean.pixels.shape:
        raise UsageError(
            f"{folder}: the images are {pixels.shape[-1]} x {pixels.shape[-2]} pixels, the clean ones "
            f"{', '.join(sizes[:SHOWN])}; give the clean images that they "
            "were made from as --clean DIR"
        )
    outside: list[str] = []
    for first in range(0, len(samples), BATCH):
        rows = slice(first, first + BATCH)
        distances = threat.distance(pixels[rows], clean.pixels[rows]) * UNITS[threat.norm]
        inside = threat.contains(pixels[rows], clean.pixels[rows]).tolist()
        parts = zip(samples[rows], distances.tolist(), inside, strict=True)
        outside += [f"{sample.id} at {distance:.4g}" for sample, distance, held in parts if not held]
    if outside:
        unit = "/255" if threat.norm == "linf" else ""
        some = ", ".join(outside[:SHOWN]) + (", ..." if len(outside) > SHOWN else "")
        raise UsageError(
            f"{folder}: {len(outside)} of {len(samples)} images lie outside {threat.norm} "
            f"{threat.eps * UNITS[threat.norm]:g}{unit} of their clean image ({some}{unit and ', in 1/255'}). Give the "
            "attack's own radius as --eps, and the clean images that it began with as --clean DIR"
        )
    return Brought(Images(pixels, clean.device), digest(pixels))
