"""Tables that the ``datasets`` library reads, here and in training: parquet files, folders, the hub's local cache."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.errors import UsageError
from bench.progress import no_bars_in_logs


def local_table(source: str, root: Path, split: str, config: str | None = None) -> Any:
    """A `datasets.Dataset` with its images not decoded; nothing is downloaded.

    Args:
        source: a parquet file, a folder that the library can load, or the hub id of a dataset that is in the local
            cache of the hub.
        root: the folder that a path is relative to.
        split: which split; of a parquet file the only one.
        config: which configuration of the dataset.

    Raises:
        UsageError: it is not there, or cannot be loaded.
    """
    import datasets

    hidden = datasets.are_progress_bars_disabled
    place = root / source
    try:
        with no_bars_in_logs(not hidden(), datasets.disable_progress_bars, datasets.enable_progress_bars):
            if place.is_file():
                rows = datasets.load_dataset("parquet", data_files=str(place), split="train")
            else:
                folder = str(place) if place.is_dir() else _cached(source, root)
                rows = datasets.load_dataset(folder, config, split=split)
    except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
        message = str(error.__cause__ or error).splitlines()[0]
        raise UsageError(f"{source} cannot be loaded: {message}; check the file, split and configuration") from error
    return undecoded(rows)


def undecoded(rows: Any) -> Any:
    """A `datasets.Dataset` that gives the bytes or path of an image, not the image."""
    import datasets

    for column, kind in rows.features.items():
        if isinstance(kind, datasets.Image):
            rows = rows.cast_column(column, datasets.Image(decode=False))
    return rows


def image_bytes(cell: Any, where: str) -> bytes:
    """The image file in a cell: bytes, or what the ``datasets`` library makes of an image or its path.

    Raises:
        UsageError: the cell holds no image.
    """
    if isinstance(cell, Mapping):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, str):
        return Path(cell).read_bytes()
    if not isinstance(cell, bytes):
        raise UsageError(f"{where} holds no image; choose another column")
    return cell


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
