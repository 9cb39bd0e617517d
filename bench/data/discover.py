"""What a folder that someone names as a dataset holds. Never imports torch."""

from pathlib import Path

from bench.errors import UsageError

IMAGE_TYPES = (".jpg", ".jpeg", ".png", ".webp")


def one_file(base: Path, place: Path, pattern: str, key: str) -> str:
    """The only file of a pattern in a folder.

    Args:
        base: the folder.
        place: the folder as paths of the row begin.
        pattern: of its name.
        key: the setting that it is for.

    Returns:
        The file under ``place``.

    Raises:
        UsageError: there is none, or more than one.
    """
    found = sorted(path.name for path in base.glob(pattern))
    if len(found) != 1:
        what = f"{len(found)} files {pattern} ({', '.join(found)})" if found else f"no file {pattern}"
        raise UsageError(f"{base} holds {what}; say which: ...?{key}=FILE, or write a .toml file with the row")
    return str(place / found[0])


def image_folder(base: Path) -> str:
    """The one folder in ``base`` that holds images; ``base`` itself if none does.

    Raises:
        UsageError: several do.
    """
    found = sorted(path.name for path in base.iterdir() if path.is_dir() and _holds_images(path))
    if len(found) > 1:
        raise UsageError(f"{base} holds several folders of images ({', '.join(found)}); say which: ...?images=FOLDER")
    return found[0] if found else ""


def _holds_images(folder: Path) -> bool:
    return any(path.suffix.lower() in IMAGE_TYPES for path in folder.iterdir())
