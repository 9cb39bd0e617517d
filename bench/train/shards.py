"""Training images in WebDataset shards: tar files on this machine, streamed."""

import hashlib
import random
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import braceexpand
import webdataset as wds

from bench.data.folders import IMAGE_TYPES, is_class
from bench.errors import UsageError
from bench.train.sources import Raw
from bench.trust.places import local_file

SHUFFLED = 1000  # samples in the shuffle buffer
MOST = 1_000_000  # shards
KINDS = tuple(kind.removeprefix(".") for kind in IMAGE_TYPES)


@dataclass(frozen=True)
class ShardSource:
    """WebDataset shards, streamed in an order drawn by seed and epoch, and mixed in a buffer.

    Every process reads the whole stream and decodes its own share, so that a batch does not depend on their number.
    """

    name: str
    shards: tuple[Path, ...]
    fingerprint: str
    classes: tuple[str, ...] | None = None
    base: Path | None = None

    def batches(self, seed: int, epoch: int, size: int, start: int) -> Iterator[list[Raw]]:
        """Full batches of one pass over all shards."""
        rng = random.Random(seed * 1_000_003 + epoch)
        shards = list(self.shards)
        rng.shuffle(shards)
        samples = (sample for shard in shards for sample in _samples(shard))
        mixed = wds.shuffle(SHUFFLED, initial=SHUFFLED, rng=rng)(samples)
        raws = islice((raw for sample in mixed for raw in _raws(sample)), start * size, None)
        while len(batch := list(islice(raws, size))) == size:
            yield batch


def open_shards(spec: str, where: str) -> ShardSource:
    """The shards of a pattern with braces or stars.

    Raises:
        UsageError: a shard is no file on this machine, is missing, or ends too early.
    """
    shards = [path for name in _expanded(spec, where) for path in _globbed(local_file(name, f"{spec}: the shard"))]
    if missing := [path for path in shards if not path.is_file()]:
        raise UsageError(f"{spec}: {len(missing)} of {len(shards)} shards are missing, e.g. {missing[0]}")
    if not shards:
        raise UsageError(f"{spec}: no shard of that name")
    for path in shards:
        _check_end(path)
    sizes = [f"{path.name}:{path.stat().st_size}" for path in shards]
    digest = hashlib.sha256("\n".join(sizes).encode(errors="surrogateescape")).hexdigest()
    return ShardSource(spec, tuple(shards), f"{len(shards)} shards, sha256 of names and sizes {digest[:16]}")


def _expanded(spec: str, where: str) -> list[str]:
    """The names that braces stand for."""
    try:
        names = [name for part in where.split("::") for name in islice(braceexpand.braceexpand(part), MOST + 1)]
    except ValueError as error:
        raise UsageError(f"{spec}: the braces cannot be expanded: {error}; write them as {{000..012}}") from error
    if len(names) > MOST:
        raise UsageError(f"{spec}: the braces stand for more than {MOST:,} shards; give fewer")
    return names


def _globbed(pattern: Path) -> list[Path]:
    return sorted(pattern.parent.glob(pattern.name)) if "*" in pattern.name else [pattern]


def _check_end(shard: Path) -> None:
    """Look for the two blocks of zeros that end a tar: a cut between two members is otherwise taken for the end."""
    try:
        with shard.open("rb") as file:
            packed = file.read(2) in (b"\x1f\x8b", b"BZ", b"\xfd7")  # these have ends of their own
            file.seek(max(0, shard.stat().st_size - 2 * tarfile.BLOCKSIZE))
            ended = file.read().count(0) == 2 * tarfile.BLOCKSIZE
    except OSError as error:
        raise UsageError(f"a shard cannot be read: {shard}: {error.strerror}; fix its permission") from error
    if not packed and not ended:
        raise UsageError(f"a shard cannot be read: {shard} does not end as a tar file does; download it again")


def _samples(shard: Path) -> Iterator[dict[str, Any]]:
    """Contents of the files of a key by their ending, key by key.

    The library gets an open file and never a name, since it runs some names as commands. A shard that cannot be read
    stops the run: going on without it would change the order of the others.
    """
    try:
        with shard.open("rb") as stream:
            opened = [{"url": str(shard), "stream": stream}]
            members = wds.tariterators.tar_file_expander(opened, select_files=_is_meant)
            yield from wds.tariterators.group_by_keys(members)
    except Exception as error:  # tarfile and the packers raise nearly anything at damaged bytes
        reason = str(error.args[0]).partition(" @ ")[0] if error.args else type(error).__name__
        raise UsageError(
            f"a shard cannot be read: {shard}: {reason}; download it again and run the same command"
        ) from error


def _is_meant(name: str) -> bool:
    """Whether a file was put there by its author: it is not hidden, nor left by an archive."""
    path = PurePosixPath(name)
    return not path.name.startswith(".") and all(map(is_class, path.parts[:-1]))


def _raws(sample: dict[str, Any]) -> Iterator[Raw]:
    """The image of a sample; whatever stands in the way of it is an image that cannot be read, and so gets counted."""
    name = f"{Path(str(sample['__url__'])).name}/{sample['__key__']}"
    endings = [ending for ending in sample if not ending.startswith("__")]
    kind = next((kind for kind in KINDS if kind in sample), None)
    if kind is not None:
        yield Raw(name, partial(bytes, sample[kind]), _label(name, sample.get("cls")))
    dotted = [ending for ending in endings if ending.rpartition(".")[2] in KINDS and ending not in KINDS]
    for ending in dotted if kind is None else ():
        reason = (
            f"{name}.{ending} has a key with a dot; a key ends at the first dot, so rename it, e.g. with underscores"
        )
        yield Raw(f"{name}.{ending}", partial(_refuse, reason))
    if kind is None and not dotted:
        yield Raw(name, partial(_refuse, f"{name} has no image (.{', .'.join(KINDS)}), only {', '.join(endings)}"))


def _refuse(reason: str) -> bytes:
    raise UsageError(reason)


def _label(name: str, content: bytes | None) -> int | None:
    if content is None:
        return None
    text = content.decode("ascii", "replace").strip()
    if not text.removeprefix("-").isdecimal() or len(text) > 18:
        raise UsageError(f"{name}.cls is not the number of a class: {text[:20]!r}")
    return int(text)
