"""Classification sets in tar shards, in the layout of the clip-benchmark/wds_* repositories."""

import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, cast

from bench.data.files import existing_folder, read_lines
from bench.data.images import identify
from bench.errors import UsageError
from tasks.base import Dataset, Sample

CLASSNAMES = "classnames.txt"
TEMPLATES = "zeroshot_classification_templates.txt"
IMAGE_TYPES = ("webp", "png", "jpg", "jpeg")


def webdataset(name: str, root: Path, *, folder: str) -> Dataset:
    """The split "test" of a classification set; image files are held in memory and decoded when opened.

    Args:
        name: of the data set.
        root: the folder that ``folder`` is relative to.
        folder: holds classnames.txt, zeroshot_classification_templates.txt and test/.

    Raises:
        UsageError: a file is missing or damaged, it is a retrieval or multi-label set, class names repeat, a
            template lacks ``{c}``, a key comes twice or lacks its image or label, or a label is out of range.
    """
    base = root / folder
    _check_type(base, name)
    classnames = _classnames(base / CLASSNAMES)
    templates = _templates(base / TEMPLATES)
    samples: dict[str, Sample] = {}
    for shard in _shards(base / "test"):
        for key, files in _groups(shard):
            if key in samples:
                raise UsageError(f"{shard}: key {key} comes twice in {base / 'test'}; download the shards again")
            label = _label(files, f"{shard}, key {key}", len(classnames), base / CLASSNAMES)
            image = identify(*_image_file(files, shard, key))
            samples[key] = Sample(key, image, "", (classnames[label],), key)
    if not samples:
        raise UsageError(f"the shards in {base / 'test'} hold no images; download them again")
    return Dataset(name, tuple(samples.values()), classnames, templates, chance=100 / len(classnames))


def _check_type(base: Path, name: str) -> None:
    existing_folder(base, f"data set {name!r}")
    path = base / "dataset_type.txt"
    kind = read_lines(path, "data set type")[0].lower() if path.exists() else "classification"
    if kind != "classification":
        raise UsageError(f"{path} says {kind!r}, but only classification sets are read; choose one of those")


def _classnames(path: Path) -> tuple[str, ...]:
    names = read_lines(path, "class names")
    first: dict[str, int] = {}
    for number, name in enumerate(names, start=1):
        if name in first:
            raise UsageError(
                f"{path}: class name {name!r} stands in lines {first[name]} and {number}; an answer could "
                "not be told right from wrong; give each class a name of its own"
            )
        first[name] = number
    return tuple(names)


def _templates(path: Path) -> tuple[str, ...]:
    templates = read_lines(path, "prompt templates")
    for number, template in enumerate(templates, start=1):
        if "{c}" not in template:
            raise UsageError(f"{path}: line {number}, {template!r}, has no field {{c}} for the class name; add it")
    return tuple(templates)


def _shards(split: Path) -> list[Path]:
    """The tar files that nshards.txt counts."""
    path = split / "nshards.txt"
    text = read_lines(path, "number of shards")[0]
    if not text.isdecimal() or int(text) == 0:
        raise UsageError(f"{path} says {text!r}, not how many shards there are; write their number there")
    shards = [split / f"{i}.tar" for i in range(int(text))]
    if missing := [shard for shard in shards if not shard.is_file()]:
        raise UsageError(f"no shard {missing[0]} ({len(missing)} of {text} are missing); download the missing ones")
    return shards


def _groups(shard: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Key and files by extension, key by key; the files of a key lie next to each other."""
    key, files = "", dict[str, bytes]()
    for path, content in _members(shard):
        stem, _, extension = path.name.partition(".")
        here = str(path.with_name(stem))
        if here != key or extension in files:
            if files:
                yield key, files
            key, files = here, {}
        files[extension] = content
    if files:
        yield key, files


def _members(shard: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Files of a tar, without hidden ones."""
    try:
        _check_end(shard)
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if member.isfile() and not path.name.startswith("."):
                    yield path, cast(IO[bytes], tar.extractfile(member)).read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UsageError(
            f"{shard} is not a whole tar file ({error}), perhaps a partial download, a web page or a git-lfs "
            "pointer; download it again"
        ) from error


def _check_end(shard: Path) -> None:
    """Look for the two blocks of zeros that end a tar: `tarfile` takes a cut between members for the end."""
    size = shard.stat().st_size
    with shard.open("rb") as file:
        file.seek(max(0, size - 2 * tarfile.BLOCKSIZE))
        if size % tarfile.BLOCKSIZE or file.read().count(0) < 2 * tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it does not end like one")


def _image_file(files: dict[str, bytes], shard: Path, key: str) -> tuple[bytes, str]:
    """Content and label of a key's image."""
    for extension in IMAGE_TYPES:
        if extension in files:
            return files[extension], f"{shard}:{key}.{extension}"
    raise UsageError(f"{shard}, key {key}: no image (.{', .'.join(IMAGE_TYPES)}) beside its label; download it again")


def _label(files: dict[str, bytes], where: str, n_classes: int, classnames: Path) -> int:
    if "cls" not in files:
        raise UsageError(f"{where}: no label (.cls) beside its image; download it again")
    text = files["cls"].decode("ascii", "replace").strip()
    try:
        label = int(text)
    except ValueError:
        raise UsageError(f"{where}: label {text[:20]!r} is not a number; download it again") from None
    if not 0 <= label < n_classes:
        raise UsageError(
            f"{where}: label {label} is out of range, {classnames} has {n_classes} classes; "
            "use class names and shards of the same set"
        )
    return label
