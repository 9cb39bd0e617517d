"""Reading small files that people download: what is wrong with one is said with its name and the remedy."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from types import UnionType
from typing import Any

from bench.errors import UsageError

_SHOWN = 60  # characters of a strange value that a message quotes


def read_bytes(path: Path, what: str) -> bytes:
    """The content of a text file that was meant to be downloaded.

    Args:
        path: the file.
        what: what it is, for the message, without an article, e.g. "VQA annotations".

    Raises:
        UsageError: there is no such file, it cannot be read, is empty, is an HTML page or a git-lfs pointer.
    """
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is no file but a folder, a pipe or a device; put {what} at that place")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"no {what} at {path}; download {path.name} to that place, or fix --data-root") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot read {what} {path}: {reason}; check the path and its permissions") from error
    head = content[:200].removeprefix(b"\xef\xbb\xbf").lstrip()
    if not head:
        raise UsageError(f"{path} is empty; download it again")
    if head.startswith(b"<"):
        raise UsageError(f"{path} is an HTML or XML page, not {what}; download the file itself, not its web page")
    if head.startswith(b"version https://git-lfs"):
        raise UsageError(f"{path} is a git-lfs pointer, not {what}; fetch the file with `git lfs pull`")
    return content


def read_json(path: Path, what: str) -> Mapping[str, Any]:
    """The JSON object in a file; a byte-order mark and any line ends are fine.

    Raises:
        UsageError: as `read_bytes`; it is not JSON, or not a JSON object.
    """
    raw = read_bytes(path, what)
    try:
        content = json.loads(raw)
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{path} is not whole JSON: {error.msg}, line {error.lineno} column {error.colno}; download again"
        ) from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not text in UTF-8; download it again, unpacked if it is an archive") from None
    except RecursionError:
        raise UsageError(f"{path} is nested too deeply to be {what}; download it again") from None
    except ValueError as error:
        raise UsageError(f"{path} holds a number that is none ({error}); is it {what}?") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds a JSON {type(content).__name__}, not an object; is it {what}?")
    return content


def read_lines(path: Path, what: str) -> list[str]:
    """The lines of a text file, stripped; blank ones at its end are dropped.

    Raises:
        UsageError: as `read_bytes`; it is not UTF-8, or a line amid the others is blank.
    """
    try:
        text = read_bytes(path, what).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not text in UTF-8; download it again") from None
    lines = [line.strip() for line in text.rstrip().split("\n")]
    if "" in lines:
        raise UsageError(f"{path}: line {lines.index('') + 1} is blank; every line counts, so restore or remove it")
    return lines


def field(entry: Any, key: str, kind: type | UnionType, where: str) -> Any:
    """``entry[key]``, which must be there and of a type.

    Args:
        entry: what should be a JSON object.
        key: the field.
        kind: the expected type, or a union of them.
        where: file and entry, for the message.

    Raises:
        UsageError: the entry is no object, lacks the field, or has it with another type.
    """
    if not isinstance(entry, dict) or key not in entry:
        shown = str(entry)[:_SHOWN]
        raise UsageError(f"{where}: no field {key!r} in {shown}; is it the official file, and whole?")
    value = entry[key]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        expected = getattr(kind, "__name__", str(kind))
        shown = repr(value)[:_SHOWN]
        raise UsageError(f"{where}: {key!r} is {shown}, not {expected}; is it the official file, and whole?")
    if isinstance(value, str):
        check_text(value, f"{where}: {key!r}")
    return value


def check_text(text: str, where: str) -> None:
    r"""Refuse a text that no file can hold: one with half a surrogate pair, as JSON's ``\ud800`` makes.

    Raises:
        UsageError: it has one.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{where} is {ascii(text)[:_SHOWN]}, which is no text in Unicode; fix it") from None


def spelled(path: PurePath) -> str:
    """A file's name as an id: with "/" between its parts; what is no text in UTF-8 is spelled so that it is."""
    return path.as_posix().encode(errors="surrogateescape").decode(errors="backslashreplace")


def existing_folder(path: Path, what: str) -> Path:
    """The path, if it is a folder.

    Raises:
        UsageError: it is not.
    """
    if not path.is_dir():
        raise UsageError(f"no folder {path} ({what}); put it there, or fix --data-root")
    return path


def listing(folder: Path) -> list[Path]:
    """What lies in a folder, sorted by name.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise UsageError(f"cannot read the folder {folder}: {error.strerror}; check its permissions") from error


def identifier(entry: Any, key: str, path: Path) -> str:
    """An id as text: ``entry[key]``, a number or a text.

    Raises:
        UsageError: as `field`.
    """
    return str(field(entry, key, int | str, str(path)))


def refuse_twice(ids: Sequence[str], what: str, path: Path) -> None:
    """Every id may come but once.

    Raises:
        UsageError: one comes twice.
    """
    seen: set[str] = set()
    for one in ids:
        if one in seen:
            raise UsageError(f"{path}: {what} {one} comes twice; remove one of them, or download the file again")
        seen.add(one)
