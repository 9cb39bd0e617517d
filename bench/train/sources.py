"""Where training images come from: folders, WebDataset shards, Hugging Face datasets. Nothing is decoded here."""

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qsl

import torch
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS

from bench.data.hub import image_bytes, local_table
from bench.errors import UsageError

KINDS = "imagefolder:DIR, folder:DIR, webdataset:PATTERN or hf:NAME"
HF_DEFAULTS = {"split": "train", "config": "", "image": "image", "label": "label"}
SHUFFLED = 1000  # samples in the shuffle buffer of a stream of shards


class Raw(NamedTuple):
    """An image that is not decoded yet: what to call it, how to get its bytes, its label if it has one."""

    id: str
    read: Callable[[], bytes]
    label: int | None = None


class Source(Protocol):
    """Images in an order that depends on seed and epoch alone."""

    @property
    def name(self) -> str:
        """As the user gave it."""

    def batches(self, seed: int, epoch: int, size: int, start: int) -> Iterator[list[Raw]]:
        """Full batches of one epoch from number ``start`` on."""


@dataclass(frozen=True)
class IndexedSource:
    """Images that can be had in any order.

    Args:
        name: as the user gave it.
        count: how many images.
        item: index -> image.
        fingerprint: changes when the images change.
        classes: names of the labels.
        rows: which of the images; None for all.
    """

    name: str
    count: int
    item: Callable[[int], Raw]
    fingerprint: str
    classes: tuple[str, ...] | None = None
    rows: torch.Tensor | None = None

    def __len__(self) -> int:
        return self.count if self.rows is None else len(self.rows)

    def batches(self, seed: int, epoch: int, size: int, start: int) -> Iterator[list[Raw]]:
        """Full batches of a permutation of all images."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
        if self.rows is not None:
            order = self.rows[order]
        for first in range(start * size, len(order) - size + 1, size):
            yield [self.item(int(row)) for row in order[first : first + size]]

    def split(self, held_out: int, seed: int) -> tuple["IndexedSource", list[Raw]]:
        """The source without some images drawn by the seed, and those images."""
        order = torch.randperm(self.count, generator=torch.Generator().manual_seed(seed + 17))
        kept = order[held_out:].sort().values
        return replace(self, rows=kept), [self.item(int(row)) for row in order[:held_out]]


@dataclass(frozen=True)
class ShardSource:
    """WebDataset shards, streamed in an order drawn by seed and epoch, and mixed in a buffer.

    Every process reads the whole stream and decodes its own share, so that a batch does not depend on their number.
    """

    name: str
    urls: tuple[str, ...]
    fingerprint: str
    classes: tuple[str, ...] | None = None

    def batches(self, seed: int, epoch: int, size: int, start: int) -> Iterator[list[Raw]]:
        """Full batches of one pass over all shards."""
        import webdataset as wds

        rng = random.Random(seed * 1_000_003 + epoch)
        urls = list(self.urls)
        rng.shuffle(urls)
        samples = wds.DataPipeline(
            wds.SimpleShardList(urls),
            wds.tarfile_to_samples(handler=_stop),
            wds.shuffle(SHUFFLED, initial=SHUFFLED, rng=rng),
        )
        images = (raw for sample in samples if (raw := _raw_of_sample(sample)) is not None)
        raws = islice(images, start * size, None)
        while len(batch := list(islice(raws, size))) == size:
            yield batch


def open_source(spec: str) -> IndexedSource | ShardSource:
    """A source by what the user calls it.

    Args:
        spec: ``imagefolder:DIR`` (a subfolder per class), ``folder:DIR`` (images at any depth), ``webdataset:PATTERN``
            (braces or a glob), ``hf:NAME?split=train&config=...&image=image&label=label`` (a folder, or a dataset in
            the local cache of the hub).

    Raises:
        UsageError: unknown kind, missing folder, no images, a library that is not installed.
    """
    kind, _, where = spec.partition(":")
    openers: dict[str, Callable[[str, str], IndexedSource | ShardSource]] = {
        "imagefolder": _image_folder,
        "folder": _folder,
        "webdataset": _shards,
        "hf": _hugging_face,
    }
    if kind not in openers or not where:
        raise UsageError(f"--data {spec!r} is not one of {KINDS}")
    return openers[kind](spec, where)


def _image_folder(spec: str, where: str) -> IndexedSource:
    _require_folder(where)
    try:
        found = ImageFolder(where, allow_empty=True)
    except FileNotFoundError as error:
        raise UsageError(f"{where} has no subfolder a class; use folder:{where} for images without labels") from error
    items = [(Path(path), label) for path, label in found.samples]
    return _files(spec, Path(where), items, tuple(found.classes))


def _folder(spec: str, where: str) -> IndexedSource:
    _require_folder(where)
    paths = sorted(p for p in Path(where).rglob("*") if p.suffix.lower() in IMG_EXTENSIONS and p.is_file())
    return _files(spec, Path(where), [(path, None) for path in paths], None)


def _files(
    spec: str, root: Path, items: Sequence[tuple[Path, int | None]], classes: tuple[str, ...] | None
) -> IndexedSource:
    if not items:
        raise UsageError(f"{spec}: no images ({', '.join(IMG_EXTENSIONS[:4])}, ...) below {root}")
    total = hashlib.sha256()
    for path, _ in items:
        total.update(f"{path.relative_to(root)}:{path.stat().st_size}\n".encode())

    def item(row: int) -> Raw:
        path, label = items[row]
        return Raw(str(path.relative_to(root)), path.read_bytes, label)

    return IndexedSource(spec, len(items), item, f"{len(items)} files, sha256 {total.hexdigest()[:16]}", classes)


def _require_folder(where: str) -> None:
    if not Path(where).is_dir():
        raise UsageError(f"no such folder: {where}")


def _shards(spec: str, where: str) -> ShardSource:
    try:
        from webdataset.shardlists import expand_urls
    except ImportError as error:
        raise UsageError("webdataset: needs the library: pip install webdataset") from error
    urls = [url for part in expand_urls(where) for url in (_globbed(part) if "*" in part else [part])]
    if missing := [u for u in urls if "://" not in u and not u.startswith("pipe:") and not Path(u).is_file()]:
        raise UsageError(f"{spec}: {len(missing)} of {len(urls)} shards are missing, e.g. {missing[0]}")
    if not urls:
        raise UsageError(f"{spec}: no shard of that name")
    sizes = [f"{Path(u).name}:{Path(u).stat().st_size if Path(u).is_file() else '?'}" for u in urls]
    digest = hashlib.sha256("\n".join(sizes).encode()).hexdigest()
    return ShardSource(spec, tuple(urls), f"{len(urls)} shards, sha256 of names and sizes {digest[:16]}")


def _stop(error: Exception) -> bool:
    """A shard that cannot be read stops the run: going on without it would change the order of the others."""
    raise UsageError(
        f"a shard cannot be read: {type(error).__name__}: {error}; fix it and run the same command"
    ) from error


def _globbed(pattern: str) -> list[str]:
    path = Path(pattern)
    return sorted(str(p) for p in path.parent.glob(path.name))


def _raw_of_sample(sample: dict[str, Any]) -> Raw | None:
    """The image of a WebDataset sample; None for a sample without one."""
    image = next((sample[ext[1:]] for ext in IMG_EXTENSIONS if ext[1:] in sample), None)
    if image is None:
        return None
    label = sample.get("cls")
    name = f"{Path(str(sample['__url__'])).name}/{sample['__key__']}"
    try:
        return Raw(name, partial(bytes, image), None if label is None else int(label))
    except ValueError as error:
        raise UsageError(f"{name}.cls is not the number of a class: {str(label)[:20]}") from error


def _hugging_face(spec: str, where: str) -> IndexedSource:
    name, _, query = where.partition("?")
    options = HF_DEFAULTS | dict(parse_qsl(query))
    if unknown := sorted(options.keys() - HF_DEFAULTS.keys()):
        raise UsageError(f"{spec}: unknown option {unknown[0]!r}; there are {', '.join(HF_DEFAULTS)}")
    image, label = options["image"], options["label"]
    table = local_table(name, Path(), options["split"], options["config"] or None)
    rows = table.rows
    for column in (image, *((label,) if "label=" in query else ())):
        if column not in rows.column_names:
            raise UsageError(f"{spec}: no column {column!r}; there are {', '.join(rows.column_names)}")
    pictures = rows.select_columns([image])
    classes, labels = _labels(rows, label)

    def item(row: int) -> Raw:
        return Raw(
            f"{name}[{row}]",
            partial(_cell, pictures, row, image, table.folder),
            None if labels is None else labels[row],
        )

    return IndexedSource(spec, len(rows), item, f"{len(rows)} rows, {rows._fingerprint}", classes)


def _labels(rows: Any, column: str) -> tuple[tuple[str, ...] | None, list[int] | None]:
    """Names of the classes and the labels of the rows, where a column of whole numbers holds them."""
    import datasets

    feature = rows.features.get(column)
    classes = tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else None
    if classes is None and not str(getattr(feature, "dtype", "")).startswith(("int", "uint")):
        return None, None
    return classes, list(rows.select_columns([column])[column])


def _cell(pictures: Any, row: int, column: str, folder: Path) -> bytes:
    """The encoded image of one row; read by the thread that decodes it."""
    return image_bytes(pictures[row][column], folder, f"row {row}, column {column!r}")
