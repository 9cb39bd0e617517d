"""Tables that the ``datasets`` library reads, here and in training: parquet files, folders, the hub's local cache.

What a folder says of itself (which files belong to it, where an image lies) is checked before the library follows it:
all must lie inside the folder, and nothing is loaded from the network.
"""

import base64
import binascii
import csv
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from bench.data.files import field, read_json
from bench.data.images import LARGEST, read_file
from bench.errors import UsageError
from bench.progress import no_bars_in_logs
from bench.trust.places import inside

MOST_VALUES = 1_000_000  # in a dataset card: a few lines of YAML can stand for any number
_QUOTED = re.compile(r"""["']([^"']*)["']""")
SAVED, SAVED_SPLITS = "state.json", "dataset_dict.json"  # what `save_to_disk` writes of a Dataset, of a DatasetDict
_WITH_MARK = "utf-8-sig"  # UTF-8, with the byte order mark that spreadsheets write or without
_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})(?:-.*)?\.\w+")  # a file of several that hold a split
_CARDS = ("README.md", ".huggingface.yaml")  # may say which files are a dataset's


class LocalTable(NamedTuple):
    """A table on this machine.

    Attributes:
        rows: a `datasets.Dataset` whose images are not decoded.
        folder: where image files that it names lie.
    """

    rows: Any
    folder: Path


def local_table(source: str, root: Path, split: str, config: str | None = None) -> LocalTable:
    """A table that is here already; nothing is downloaded.

    Args:
        source: a parquet or TSV file, a folder that the library can load or has saved (``save_to_disk``), or the hub
            id of a dataset that is in the local cache of the hub. Every column of a TSV file holds texts.
        root: the folder that a path is relative to.
        split: which split; of a parquet file and of a single saved Dataset the only one.
        config: which configuration of the dataset.

    Raises:
        UsageError: it is not there, cannot be loaded, or names files outside its folder.
    """
    import datasets

    place = root / source
    folder = place.parent if place.is_file() else place if place.is_dir() else Path(_cached(source, root))
    if folder != place.parent:
        check_folder(folder)
    try:
        with _quiet():
            if place.is_file() and place.suffix.lower() == ".tsv":
                rows = _tsv(place)
            elif place.is_file():
                rows = datasets.load_dataset("parquet", data_files=str(place), split="train")
            elif (folder / SAVED).is_file():
                rows = datasets.load_from_disk(str(folder))
            elif (folder / SAVED_SPLITS).is_file():
                rows = datasets.load_from_disk(str(folder))[split]
            else:
                rows = datasets.load_dataset(str(folder), config, split=split)
    except Exception as error:  # every hub and format error of that library ends here
        reason = str(error.__cause__ or error) or type(error).__name__
        raise UsageError(
            f"{place if place.exists() else source} cannot be loaded: {reason.splitlines()[0]}; check the file, split "
            "and configuration"
        ) from error
    if not place.is_file():
        _check_parts(folder, split.partition("[")[0])
    return LocalTable(undecoded(rows), folder)


def _check_parts(folder: Path, split: str) -> None:
    """Refuse a split of which a part was not downloaded: the library takes what there is for the whole."""
    parts: dict[tuple[str, int], set[int]] = {}
    for path in folder.rglob("*-of-*"):
        if (found := _PART.fullmatch(path.name)) and split in re.split(r"[-_.]", found[1]):
            key = path.with_name(found[1]).relative_to(folder).as_posix(), int(found[3])
            parts.setdefault(key, set()).add(int(found[2]))
    for (name, count), there in parts.items():
        if missing := sorted(set(range(count)) - there):
            raise UsageError(
                f"{folder / name}-{missing[0]:05}-of-{count:05} is missing ({len(missing)} of {count} files of that "
                "split are); download it"
            )


def _tsv(path: Path) -> Any:
    """The rows of a TSV file, all cells as texts: "NA" and "None" are words, an empty cell is an empty text."""
    import datasets

    with path.open(encoding=_WITH_MARK, newline="") as file:
        names = next(csv.reader(file, delimiter="\t"))
    features = datasets.Features({name: datasets.Value("large_string") for name in names})
    options = {"sep": "\t", "keep_default_na": False, "na_filter": False, "features": features, "chunksize": 500}
    options["encoding"] = _WITH_MARK
    return datasets.load_dataset("csv", data_files=str(path), split="train", **options)


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars in logs, and no lines of the library's own about what it raises as well."""
    import datasets

    hidden, level = datasets.are_progress_bars_disabled, datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        with no_bars_in_logs(not hidden(), datasets.disable_progress_bars, datasets.enable_progress_bars):
            yield
    finally:
        datasets.logging.set_verbosity(level)


def check_folder(folder: Path) -> None:
    """Refuse a folder whose descriptions name files outside it or on the network, before ``datasets`` opens those.

    Raises:
        UsageError: it does; or a description is damaged.
    """
    for name, where in _files_named(folder):
        if "://" in name or "::" in name:
            raise UsageError(f"{where} names {name!r}, which is not in the folder; only files of the folder are read")
        inside(folder, name, where)


def undecoded(rows: Any) -> Any:
    """A `datasets.Dataset` that gives the bytes or path of an image, not the image."""
    import datasets

    for column, kind in rows.features.items():
        if isinstance(kind, datasets.Image):
            rows = rows.cast_column(column, datasets.Image(decode=False))
    return rows


def image_bytes(cell: Any, folder: Path, where: str, *, text: str = "path") -> bytes:
    """The image file in a cell: bytes, or what the ``datasets`` library makes of an image or its path.

    Args:
        cell: of a table.
        folder: where the table lies: an image that is named by its path must lie there too.
        where: the cell, for messages.
        text: what a text is: the "path" of an image, or its bytes in "base64".

    Raises:
        UsageError: the cell holds no image, several, or one that lies elsewhere.
    """
    if isinstance(cell, Mapping):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, str) and text == "base64":
        return _from_base64(cell, where)
    if isinstance(cell, str):
        return read_file(_inside(folder, cell, where))
    if not isinstance(cell, bytes):
        raise UsageError(f"{where} holds no image; choose another column")
    return cell


def _from_base64(said: str, where: str) -> bytes:
    """One image: bare, behind ``data:image/png;base64,``, or alone in a list."""
    said = said.strip()
    if said.startswith("["):
        said = _only(said, where)
    if said.startswith("data:"):
        said = said.partition(",")[2]
    if len(said) > 4 * (LARGEST // 3):
        raise UsageError(f"{where} has {len(said)} characters; an image file has at most {LARGEST} bytes: is it one?")
    try:
        return base64.b64decode(said, validate=True)
    except (binascii.Error, ValueError):
        raise UsageError(
            f"{where} holds {said[:40]!r}, which is no image in base64; choose another column, or image_text=path"
        ) from None


def _only(said: str, where: str) -> str:
    """The one text of a list as Python or JSON writes it, without an evaluation: base64 holds no quotation marks."""
    parts: list[str] = _QUOTED.findall(said)
    if len(parts) != 1:
        raise UsageError(f"{where} holds {len(parts)} images; questions about one image are read: remove the row")
    return parts[0]


def _inside(folder: Path, name: str, where: str) -> Path:
    """The file; the library makes the paths of a folder's images absolute."""
    base = folder.absolute()
    within = Path(name).is_relative_to(base)
    return inside(folder, Path(name).relative_to(base).as_posix() if within else name, f"{where}: path")


def _files_named(folder: Path) -> Iterator[tuple[str, str]]:
    """Every name of a file or folder in what the folder says of itself, and where it stands."""
    for name in _CARDS:
        for entry in _configurations(folder / name):
            for key in ("data_files", "data_dir"):
                yield from ((text, f"{folder / name}: {key}") for text in _texts(entry.get(key)))
    if (folder / SAVED_SPLITS).is_file():
        path = folder / SAVED_SPLITS
        for split in field(read_json(path, "list of splits"), "splits", list, str(path)):
            yield str(split), f"{path}: split"
            yield from _saved_files(inside(folder, str(split), f"{path}: split"))
    yield from _saved_files(folder)


def _saved_files(folder: Path) -> Iterator[tuple[str, str]]:
    if (path := folder / SAVED).is_file():
        for entry in field(read_json(path, "state of a saved dataset"), "_data_files", list, str(path)):
            yield field(entry, "filename", str, str(path)), f"{path}: filename"


def _configurations(path: Path) -> list[Mapping[str, Any]]:
    """The ``configs`` in a dataset card."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix == ".md":
        text = text.split("---", 2)[1] if text.startswith("---") and text.count("---") > 1 else ""
    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"{path} is not whole YAML: {reason}; fix it, or download it again") from None
    if sum(1 for _ in islice(_values(found), MOST_VALUES + 1)) > MOST_VALUES:
        raise UsageError(
            f"{path} holds more than {MOST_VALUES:,} values, or one that holds itself; download it again, or take its "
            "anchors (&) out"
        )
    entries = found.get("configs") if isinstance(found, dict) else None
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _texts(value: Any) -> Iterator[str]:
    """All texts in a value of lists and tables, keys left out."""
    return (one for one in _values(value) if isinstance(one, str))


def _values(value: Any) -> Iterator[Any]:
    """A value and all in it, as often as it is named: without end where a list of YAML's holds itself."""
    left = [value]
    while left:
        yield (one := left.pop())
        left += reversed([*one.values()] if isinstance(one, dict) else one if isinstance(one, list) else [])


def _cached(source: str, root: Path) -> str:
    """The folder of a dataset in the local cache of the hub."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return snapshot_download(source, repo_type="dataset", local_files_only=True)
    except (LocalEntryNotFoundError, HFValidationError):
        raise UsageError(
            f"no file or folder {root / source}, and no dataset {source!r} in the local cache of the hub; fix the "
            "path, or get it with `hf download --repo-type dataset`"
        ) from None
