"""Classification sets in tar shards, in the layout of the clip-benchmark/wds_* repositories."""

import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, cast

from bench.data.files import existing_folder, listing, read_lines, spelled
from bench.data.images import Stored
from bench.data.needed import Needed
from bench.data.reader import Reader, Row, place_is
from bench.data.settings import PATH, PROMPTS, Setting
from bench.data.templates import TEMPLATES, given_templates, read_templates
from bench.errors import UsageError
from bench.trust.places import inside
from tasks.base import Dataset, Sample

CLASSNAMES = "classnames.txt"
IMAGE_TYPES = ("webp", "png", "jpg", "jpeg")
_COUNT = "0*[1-9][0-9]{0,5}"  # of shards
_LONGEST_LABEL = 100  # bytes
_HUB = "https://huggingface.co/datasets/clip-benchmark"


def webdataset(name: str, root: Path, *, folder: str, templates: str | Sequence[str] | None = None) -> Dataset:
    """The split "test" of a classification set; images stay in their shards until they are opened.

    A sample's files lie next to each other and share a key: their names up to the first dot, folders included. So a
    key holds no dot; what follows it says what the file is, ``png`` or ``cls``.

    Args:
        name: of the dataset.
        root: the folder that ``folder`` is relative to.
        folder: holds classnames.txt, zeroshot_classification_templates.txt and test/.
        templates: take the place of the folder's file; see `bench.data.templates.given_templates`.

    Raises:
        UsageError: a file is missing or damaged, it is a retrieval or multi-label set, a template lacks ``{c}``, a
            key holds a dot, comes twice or lacks its image or label, or a label is out of range.
    """
    base = root / folder
    _check_type(base, name)
    classnames = tuple(read_lines(base / CLASSNAMES, "class names"))
    prompts = read_templates(base / TEMPLATES) if templates is None else given_templates(templates, name)
    samples: dict[str, Sample] = {}
    dotted: list[str] = []
    for shard in _shards(base / "test"):
        for key, files in _groups(shard):
            dotted += [f"{shard}:{key}.{rest}" for rest in _after_dots(files)]
            if dotted:
                continue
            if key in samples:
                raise UsageError(f"{shard}: key {key} comes twice in {base / 'test'}; download the shards again")
            label = _label(files, f"{shard}, key {key}", len(classnames), base / CLASSNAMES)
            samples[key] = Sample(key, _image(files, shard, key), "", (classnames[label],), key, label)
    if dotted:
        raise UsageError(
            f"{len(dotted)} samples have a key with a dot, such as {dotted[0]}; a key ends at the first dot of its "
            "files' names, so it can hold none: rename them, for example with underscores"
        )
    if not samples:
        raise UsageError(f"the shards in {base / 'test'} hold no images; download them again")
    return Dataset(name, tuple(samples.values()), classnames, prompts, chance=100 / len(classnames))


def _after_dots(files: Mapping[str, object]) -> list[str]:
    """What keys with dots have behind the first one: such samples look like files of one key with strange endings."""
    whole = "cls" in files and any(kind in files for kind in IMAGE_TYPES)
    endings = [extension.rpartition(".") for extension in files if "." in extension]
    return sorted({stem for stem, _, last in endings if last == "cls" or (not whole and last in IMAGE_TYPES)})


class _Member(NamedTuple):
    """A file's place in a tar."""

    offset: int
    size: int


def _read(shard: Path, member: _Member) -> bytes:
    with shard.open("rb") as file:
        file.seek(member.offset)
        return file.read(member.size)


def _check_type(base: Path, name: str) -> None:
    existing_folder(base, f"dataset {name!r}")
    path = base / "dataset_type.txt"
    kind = read_lines(path, "dataset type")[0].lower() if path.exists() else "classification"
    if kind != "classification":
        raise UsageError(f"{path} says {kind!r}, but only classification sets are read; choose one of those")


def _shards(split: Path) -> list[Path]:
    """The tar files that nshards.txt counts."""
    path = split / "nshards.txt"
    text = read_lines(path, "number of shards")[0]
    if not re.fullmatch(_COUNT, text):
        raise UsageError(f"{path} says {text!r}, not how many shards there are; write their number there")
    shards = [split / f"{i}.tar" for i in range(int(text))]
    if missing := [shard for shard in shards if not shard.is_file()]:
        raise UsageError(f"no shard {missing[0]} ({len(missing)} of {text} are missing); download the missing ones")
    if surplus := sorted(one for one in listing(split) if one.suffix == ".tar" and one not in shards):
        raise UsageError(f"{path} says that there are {text} shards, and there is {surplus[0]}, too; correct it")
    return shards


def _groups(shard: Path) -> Iterator[tuple[str, dict[str, _Member | bytes]]]:
    """Key and files by extension, key by key; the files of a key lie next to each other."""
    key, files = "", dict[str, _Member | bytes]()
    for path, content in _members(shard):
        stem, _, extension = path.name.partition(".")
        extension = extension.lower()  # as the webdataset library has it
        here = spelled(path.with_name(stem))
        if here != key or extension in files:
            if files:
                yield key, files
            key, files = here, {}
        files[extension] = content
    if files:
        yield key, files


def _members(shard: Path) -> Iterator[tuple[PurePosixPath, _Member | bytes]]:
    """Files of a tar, without hidden ones: a label's content, any other file's place."""
    try:
        _check_end(shard)
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if not member.isfile() or path.name.startswith("."):
                    continue
                inside(shard.parent, member.name, f"{shard}: the file")
                if member.issparse():
                    raise UsageError(f"{shard}: the file {member.name!r} is sparse; pack the shard without --sparse")
                if path.suffix.lower() == ".cls":
                    yield path, cast(IO[bytes], tar.extractfile(member)).read(_LONGEST_LABEL)
                else:
                    yield path, _Member(member.offset_data, member.size)
    except UsageError:
        raise
    except Exception as error:  # tarfile raises anything at all on damaged headers
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


def _image(files: dict[str, _Member | bytes], shard: Path, key: str) -> Stored:
    """A key's image, to be read when it is opened."""
    found = [(kind, member) for kind in IMAGE_TYPES if isinstance(member := files.get(kind), _Member)]
    if not found:
        raise UsageError(
            f"{shard}, key {key}: no image (.{', .'.join(IMAGE_TYPES)}) beside its label; download it again"
        )
    if len(found) > 1:
        kinds = " and ".join(f".{kind}" for kind, _ in found)
        raise UsageError(f"{shard}, key {key}: several images ({kinds}) for one label; pack the shard with one of them")
    ((extension, member),) = found
    return Stored(f"{shard}:{key}.{extension}", partial(_read, shard, member))


def _label(files: dict[str, _Member | bytes], where: str, n_classes: int, classnames: Path) -> int:
    if not isinstance(content := files.get("cls"), bytes):
        raise UsageError(f"{where}: no label (.cls) beside its image; download it again")
    text = content.decode("ascii", "replace").strip()
    if not re.fullmatch("[+-]?[0-9]+", text):
        raise UsageError(f"{where}: label {text[:20]!r} is not a number; download it again")
    label = int(text)
    if not 0 <= label < n_classes:
        raise UsageError(
            f"{where}: label {label} is out of range, {classnames} has {n_classes} classes; "
            "use class names and shards of the same set"
        )
    return label


def _needed(row: Row, root: Path) -> list[Needed]:
    """What the folder must hold; how many shards, its nshards.txt tells."""
    folder = str(row["folder"])
    names = [CLASSNAMES, *([] if "templates" in row else [TEMPLATES]), "test/nshards.txt"]
    counted = root / folder / "test" / "nshards.txt"
    count = counted.read_text(errors="replace").strip() if counted.is_file() else ""
    names += [f"test/{k}.tar" for k in range(int(count))] if re.fullmatch(_COUNT, count) else ["test/0.tar"]
    return [_needed_file(folder, name, root) for name in names]


def _needed_file(folder: str, name: str, root: Path) -> Needed:
    place = f"{folder}/{name}"
    repository = PurePosixPath(folder).name
    if not repository.startswith("wds_") or folder != repository:
        return Needed(place, (root / place).exists())
    page = f"{_HUB}/{repository}"
    return Needed(place, (root / place).exists(), page, f"{page}/resolve/main/{name}")


WEBDATASET = Reader(
    about="tar shards with class names and templates, as clip-benchmark/wds_*",
    settings={"folder": Setting(PATH, required=True), "templates": Setting(PROMPTS)},
    read=webdataset,
    tasks=lambda row: ("zeroshot",),
    find=place_is("folder"),
    needed=_needed,
)
