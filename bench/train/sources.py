"""Where training images come from: folders, WebDataset shards, tables. Nothing is decoded here.

Every name in a source is that of a file on this machine (`bench.trust.places`); folders and tables are read by the same
rules as in evaluation (`bench.data`).
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import torch

from bench.data.files import listing, spelled
from bench.data.folders import IMAGE_TYPES, UNREAD, class_order, files_below, is_class, said_of
from bench.data.images import read_file
from bench.errors import UsageError
from bench.train.log import say

KINDS = "imagefolder:DIR, folder:DIR, webdataset:PATTERN or hf:NAME"


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

    @property
    def fingerprint(self) -> str:
        """Changes when the images change."""

    @property
    def classes(self) -> tuple[str, ...] | None:
        """What the data calls its labels; None if it does not."""

    @property
    def base(self) -> Path | None:
        """The folder that the classes' folders lie in, if they are folders."""

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
        classes: what the data calls its labels.
        base: the folder that the classes' folders lie in.
        rows: which of the images; None for all.
    """

    name: str
    count: int
    item: Callable[[int], Raw]
    fingerprint: str
    classes: tuple[str, ...] | None = None
    base: Path | None = None
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


def open_source(spec: str) -> Source:
    """A source by what the user calls it.

    Args:
        spec: ``imagefolder:DIR`` (a subfolder per class), ``folder:DIR`` (images at any depth), ``webdataset:PATTERN``
            (braces or a glob), ``hf:NAME?split=train&config=...&image=image&label=label`` (a folder, or a dataset in
            the local cache of the hub).

    Raises:
        UsageError: unknown kind, missing folder, no images, a library that is not installed.
    """
    from bench.train.shards import open_shards
    from bench.train.tables import open_table

    kind, _, where = spec.partition(":")
    openers: dict[str, Callable[[str, str], Source]] = {
        "imagefolder": _image_folder,
        "folder": _folder,
        "webdataset": open_shards,
        "hf": open_table,
    }
    if kind not in openers or not where:
        raise UsageError(f"--data {spec!r} is not one of {KINDS}")
    return openers[kind](spec, where)


def _image_folder(spec: str, where: str) -> IndexedSource:
    base = _existing(where)
    classes = class_order([entry.name for entry in listing(base) if entry.is_dir() and is_class(entry.name)])
    if not classes:
        raise UsageError(f"{where} has no subfolder for each class; use folder:{where} for images without labels")
    items: list[tuple[Path, int | None]] = []
    for label, each in enumerate(classes):
        found = _images(base / each)
        items += [(path, label) for path in found]
        if not found:
            say(f"the class {each!r} has no images; remove the folder {base / each} if it is none")
    return _files(spec, base, items, tuple(classes))


def _folder(spec: str, where: str) -> IndexedSource:
    base = _existing(where)
    return _files(spec, base, [(path, None) for path in _images(base)], None)


def _images(folder: Path) -> list[Path]:
    """Images at any depth, without hidden ones and those that archives leave."""
    found = files_below(folder)
    for line in said_of(found, UNREAD, "of a type that is not read; convert them to PNG"):
        say(line)
    return [path for path in found if path.suffix.lower() in IMAGE_TYPES and path.is_file()]


def _files(
    spec: str, base: Path, items: Sequence[tuple[Path, int | None]], classes: tuple[str, ...] | None
) -> IndexedSource:
    if not items:
        raise UsageError(f"{spec}: no images ({', '.join(IMAGE_TYPES[:4])}, ...) below {base}")
    names = [spelled(path.relative_to(base)) for path, _ in items]
    total = hashlib.sha256()
    for name, (path, _) in zip(names, items, strict=True):
        total.update(f"{name}:{path.stat().st_size}\n".encode())

    def item(row: int) -> Raw:
        path, label = items[row]
        return Raw(names[row], partial(read_file, path), label)

    fingerprint = f"{len(items)} files, sha256 {total.hexdigest()[:16]}"
    return IndexedSource(spec, len(items), item, fingerprint, classes, None if classes is None else base)


def _existing(where: str) -> Path:
    if "\0" in where or not Path(where).is_dir():
        raise UsageError(f"no such folder: {where!r}")
    return Path(where)
