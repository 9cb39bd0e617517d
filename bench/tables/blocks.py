"""The generated blocks of a Markdown file, between the lines ``<!-- bench:NAME -->`` and ``<!-- /bench:NAME -->``."""

import re
from collections.abc import Mapping
from pathlib import Path

from bench.errors import UsageError
from bench.records import RecordsError, write_atomically
from bench.records.files import explained
from bench.tables.table import BANNER
from bench.trust.places import safe_name
from bench.trust.text import for_markdown


def write_block(markdown_file: Path | str, name: str, content: str) -> None:
    """Put `content` between the lines of a block.

    Raises:
        UsageError: If `content` is empty or carries the banner of a partial result, or the file does not have
            each of the two lines once, in this order.
        RecordsError: If the file cannot be read or written.
    """
    _require_whole(name, content)
    before, _, after = _find_block(Path(markdown_file), name)
    write_atomically(Path(markdown_file), before + content.strip() + after)


def write_document(markdown_file: Path, contents: Mapping[str, str]) -> None:
    """Write a new document with a block for each name, under a heading.

    Raises:
        UsageError: If a content is empty or carries the banner of a partial result.
        RecordsError: If it cannot be written.
    """
    parts = []
    for name, content in contents.items():
        _require_whole(name, content)
        begin, end = _marks(name)
        parts.append(f"## {for_markdown(name)}\n\n{begin}\n{content.strip()}\n{end}\n")
    with explained("create", markdown_file.parent):
        markdown_file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(markdown_file, "# Results\n\n" + "\n".join(parts))


def stale(markdown_file: Path | str, name: str, content: str) -> bool:
    """Whether the block differs from `content`; raises as `write_block` does."""
    return _find_block(Path(markdown_file), name)[1].strip() != content.strip()


def _require_whole(name: str, content: str) -> None:
    if not content.strip():
        raise UsageError(f"block {name} would be empty")
    if BANNER in content:
        raise UsageError(f"block {name} holds partial results; only whole runs enter a committed table")


def _marks(name: str) -> tuple[str, str]:
    """The lines around a block; a name that could end a comment, as a task's in a result may, is its digest there."""
    return f"<!-- bench:{safe_name(name)} -->", f"<!-- /bench:{safe_name(name)} -->"


def _find_block(path: Path, name: str) -> tuple[str, str, str]:
    """The file's text up to, inside and from the end of the block."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecordsError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RecordsError(f"{path} is no text in UTF-8; convert it, or write another document") from error
    begin, end = _marks(name)
    found = re.search(f"{re.escape(begin)}\n(.*?)(?=\n?{re.escape(end)})", text, re.DOTALL)
    if found is None or text.count(begin) != 1 or text.count(end) != 1:
        raise UsageError(f"{path} must have the lines {begin} and {end} once each, in this order; add them")
    return text[: found.start(1)], found[1], "\n" + text[found.end(1) :].lstrip("\n")
