"""Decoded batches ahead of time, in an order that depends on (seed, epoch) alone, with a place to come back to."""

import json
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from bench.data.images import Stored, open_image
from bench.errors import UsageError
from bench.train.batch import Batch
from bench.train.checkpoint import TrainingError
from bench.train.distributed import World
from bench.train.log import say
from bench.train.sources import IndexedSource, Raw, Source

BATCHES_AHEAD = 3
SHOWN = 20  # skipped images named on the screen; the file names all


class _Pending(NamedTuple):
    raws: list[Raw]
    images: list[Future[tuple[Tensor, Raw]]]
    epoch: int
    done: int  # batches of the epoch, this one included


class ImageStream:
    """Batches of decoded images; call it with each step in turn.

    An image that cannot be decoded is skipped, counted and named; the next one of its global batch takes its place, so
    that a batch depends neither on the number of processes nor on a crash.

    Args:
        source: where images come from.
        preprocess: image -> (3, H, W) in [0, 1].
        batch: images of a global batch.
        seed: of the order.
        world: the processes that share each batch.
        threads: that decode.
        upright: turn images as their EXIF orientation says.
        skipped_file: where skipped images are named.
    """

    def __init__(
        self,
        source: Source,
        preprocess: Callable[[Image.Image], Tensor],
        batch: int,
        *,
        seed: int = 0,
        world: World | None = None,
        threads: int = 4,
        upright: bool = True,
        skipped_file: Path | None = None,
    ) -> None:
        self._source, self._preprocess, self._batch, self._seed = source, preprocess, batch, seed
        self._world, self._upright = world or World(), upright
        if batch % self._world.size:
            raise TrainingError(f"a batch of {batch} cannot be shared by {self._world.size} processes")
        if isinstance(source, IndexedSource) and len(source) < batch:
            raise TrainingError(
                f"{source.name} has {len(source)} images to train on, fewer than one batch of {batch}; lower --batch "
                "or give more images"
            )
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._skipped_file, self._lock = skipped_file, Lock()
        self._named = skipped_names(skipped_file)
        self._gap = "\n" if _is_torn(skipped_file) else ""
        self.skipped: dict[str, str] = {}
        self._epoch, self._done = 0, 0
        self._restart()

    def state_dict(self) -> dict[str, Any]:
        """Epoch, and how many of its batches have been used."""
        return {"epoch": self._epoch, "batch": self._done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on behind that batch.

        Raises:
            ValueError: the state is no place.
        """
        epoch, done = state["epoch"], state["batch"]
        if not all(isinstance(number, int) and number >= 0 for number in (epoch, done)):
            raise ValueError(f"no place in the data: {state}")
        self._epoch, self._done = epoch, done
        self._restart()

    def _restart(self) -> None:
        self._ahead: deque[_Pending] = deque()
        self._batches = self._endless(self._epoch, self._done)

    def _endless(self, epoch: int, start: int) -> Iterator[tuple[list[Raw], int, int]]:
        while True:
            number = start
            for raws in self._source.batches(self._seed, epoch, self._batch, start):
                number += 1
                yield raws, epoch, number
            if number == 0:
                raise TrainingError(f"{self._source.name} does not fill one batch of {self._batch}; lower --batch")
            epoch, start = epoch + 1, 0

    def __call__(self, step: int) -> Batch:
        """This process's share of the next global batch."""
        while len(self._ahead) < BATCHES_AHEAD:
            raws, epoch, done = next(self._batches)
            share = range(*self._world.share(self._batch).indices(self._batch))
            self._ahead.append(_Pending(raws, [self._pool.submit(self._decode, raws, i) for i in share], epoch, done))
        pending = self._ahead.popleft()
        found = [future.result() for future in pending.images]
        self._epoch, self._done = pending.epoch, pending.done
        labels = [raw.label for _, raw in found]
        return Batch(
            torch.stack([image for image, _ in found]),
            None if None in labels else torch.tensor(labels),
            [raw.id for _, raw in found],
        )

    def _decode(self, raws: list[Raw], index: int) -> tuple[Tensor, Raw]:
        """One image of a batch, or the next that can be read."""
        for offset in range(len(raws)):
            raw = raws[(index + offset) % len(raws)]
            if raw.id not in self.skipped and (image := self._readable(raw)) is not None:
                return image, raw
        raise TrainingError(f"none of the {len(raws)} images of a batch can be read: {self.skipped[raws[index].id]}")

    def readable(self, raws: list[Raw]) -> list[tuple[Tensor, Raw]]:
        """Those images that can be decoded; the others are skipped, counted and named."""
        return [(image, raw) for raw in raws if (image := self._readable(raw)) is not None]

    def _readable(self, raw: Raw) -> Tensor | None:
        """(3, H, W) in [0, 1]; None if the image cannot be read."""
        try:
            return self._preprocess(open_image(Stored(raw.id, raw.read), upright=self._upright))
        except UsageError as error:
            self._skip(raw.id, str(error))
            return None

    def _skip(self, name: str, reason: str) -> None:
        """Count an image that cannot be read, and name it once, whatever crashes in between.

        Raises:
            TrainingError: the file of names cannot be written.
        """
        with self._lock:
            self.skipped[name] = reason
            if len(self.skipped) <= SHOWN:
                say(f"skipped: {reason}")
            if self._skipped_file is None or name in self._named:
                return
            self._named.add(name)
            try:
                with self._skipped_file.open("a") as file:
                    file.write(self._gap + json.dumps({"id": name, "reason": reason}) + "\n")
                self._gap = ""
            except OSError as failed:
                raise TrainingError(
                    f"cannot write {self._skipped_file}: {failed.strerror}; fix that and run the same command"
                ) from failed

    def close(self) -> None:
        """Stop the decoding threads."""
        self._pool.shutdown(cancel_futures=True)


def skipped_names(file: Path | None) -> set[str]:
    """Names in a file of skipped images; none if there is no such file."""
    if file is None or not file.is_file():
        return set()
    return {name for line in file.read_text(errors="replace").splitlines() if (name := _name(line)) is not None}


def _is_torn(file: Path | None) -> bool:
    """Whether a crash cut the last line short."""
    content = file.read_bytes() if file is not None and file.is_file() else b""
    return content != b"" and not content.endswith(b"\n")


def _name(line: str) -> str | None:
    """The image that a line names; None for a line that a crash cut short."""
    try:
        return str(json.loads(line)["id"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
