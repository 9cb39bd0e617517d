"""All pictures of a run, decoded once and ready for a model."""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from PIL import Image
from torch import Tensor

from bench.data.images import Fingerprint, open_image
from bench.errors import UsageError
from tasks.base import Dataset

_WITHOUT = " without "  # in a fingerprint, before the ids of samples whose pictures it does not cover
_MOST_BROKEN = 0.1  # a larger share of pictures that cannot be opened is a wrong folder, not a bad file


@dataclass(frozen=True)
class Images:
    """Preprocessed pictures, kept in main memory; a batch moves to the device when it is asked for.

    Attributes:
        pixels: (N, 3, H, W) float32 in [0, 1]; N tensors (3, H, W) where sizes differ.
        device: where batches go.
    """

    pixels: Tensor | Sequence[Tensor]
    device: torch.device

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, rows: Sequence[int]) -> Tensor:
        """(b, 3, H, W) on the device, of rows whose pictures have one size."""
        if isinstance(self.pixels, Tensor):
            return self.pixels[list(rows)].to(self.device)
        return torch.stack([self.pixels[row] for row in rows]).to(self.device)

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of each picture."""
        return [self._size(row) for row in range(len(self))]

    def _size(self, row: int) -> tuple[int, int]:
        height, width = self.pixels[row].shape[1:]
        return height, width

    def by_size(self, rows: Sequence[int]) -> list[int]:
        """The same rows, those of pictures of one size side by side, else in their order."""
        if isinstance(self.pixels, Tensor):
            return list(rows)
        order: dict[tuple[int, int], int] = {}
        return sorted(rows, key=lambda row: order.setdefault(self._size(row), len(order)))

    def alike(self, rows: Sequence[int]) -> list[int]:
        """The first of some rows, as far as their pictures have one size."""
        return list(takewhile(lambda row: self._size(row) == self._size(rows[0]), rows))


@dataclass(frozen=True)
class Pictures:
    """What `read_pictures` found.

    Attributes:
        images: one per sample; black where the picture is broken.
        broken: why a sample's picture cannot be opened, by the sample's id.
        fingerprint: of texts and pixels, and which samples' pixels it leaves out.
    """

    images: Images
    broken: dict[str, str]
    fingerprint: str


def read_pictures(
    dataset: Dataset,
    preprocess: Callable[[Image.Image], Tensor],
    device: torch.device,
    *,
    upright: bool = True,
    left_out: Collection[str] = (),
) -> Pictures:
    """Open and preprocess every picture, one at a time.

    Args:
        dataset: its samples.
        preprocess: picture -> (3, H, W) float32 in [0, 1].
        device: where batches will be asked for.
        upright: turn pictures as their EXIF orientation says.
        left_out: ids whose pixels the fingerprint leaves out, whether they can be opened now or not.

    Raises:
        UsageError: more than a tenth of the pictures cannot be opened.
    """
    total, broken = Fingerprint(dataset), dict[str, str]()
    pixels: Tensor | list[Tensor] | None = None
    for row, sample in enumerate(dataset.samples):
        try:
            picture = open_image(sample.image, upright=upright)
        except UsageError as error:
            broken[sample.id] = f"sample {sample.id}: {error}"
            continue
        if sample.id not in left_out:
            total.add(picture)
        image = preprocess(picture)
        if pixels is None:
            pixels = torch.zeros(len(dataset.samples), *image.shape)
        if isinstance(pixels, Tensor) and image.shape != pixels.shape[1:]:
            pixels = list(pixels)  # from here on each picture has its own size
        pixels[row] = image
    if pixels is None or len(broken) > max(1, _MOST_BROKEN * len(dataset.samples)):
        raise UsageError(
            f"{len(broken)} of {len(dataset.samples)} images of {dataset.name} cannot be used; the first, "
            f"{next(iter(broken.values()))}"
        )
    absent = [s.id for s in dataset.samples if s.id in broken or s.id in left_out]
    mark = _WITHOUT + json.dumps(absent) if absent else ""
    return Pictures(Images(pixels, device), broken, total.hexdigest() + mark)


def ids_left_out(fingerprint: str) -> frozenset[str]:
    """The samples whose pixels a fingerprint does not cover, for they could not be opened when its run began."""
    _, found, ids = fingerprint.partition(_WITHOUT)
    return frozenset(json.loads(ids)) if found else frozenset()
