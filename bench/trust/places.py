"""Where files may lie: nothing that is read names a place outside its folder, and no link inside a run is followed.

Names that come from a file (an annotation's image, a header's run) are joined to a folder with `inside`; names made of
any text (a sample's id) come from `safe_name`; what a run writes to or deletes is looked at with `no_links` first.
A folder that a person names is taken as it is, links on the way to it included: it is theirs to choose.
"""

import os
import re
from hashlib import sha256
from pathlib import Path, PurePosixPath

from bench.errors import UsageError

LONGEST_NAME = 200  # bytes; file systems end at 255, with a suffix
_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*://|pipe:)", re.IGNORECASE)
_DIGEST = re.compile("[0-9a-f]{64}")  # another text's name


def inside(root: Path, name: str, what: str) -> Path:
    """The file `name` under `root`, where the name was read from a file.

    Only the name is looked at: folders of links, such as those of a hub's cache, stay usable.

    Args:
        root: The folder that it must lie in.
        name: A relative path with "/" between its parts.
        what: Where the name was read, for the message, such as "captions.json, row 7: filename".

    Raises:
        UsageError: If the name is absolute, climbs with "..", is empty, or can be no file's.
    """
    path = PurePosixPath(name)
    if path.is_absolute():
        raise UsageError(f"{what} {name!r} is an absolute path; it must lie inside {root}: give it relative to that")
    if ".." in path.parts:
        raise UsageError(f"{what} {name!r} leaves {root}; no part of it may be '..'")
    if not path.parts or "\0" in name or not _can_be_written(path):
        raise UsageError(f"{what} {name!r} can be no file's name; fix it")
    return root / path


def _can_be_written(path: PurePosixPath) -> bool:
    try:
        return all(len(os.fsencode(part)) <= 255 for part in path.parts)
    except UnicodeEncodeError:
        return False


def no_links(path: Path, below: Path | None = None) -> Path:
    """`path`, which must be no link, and neither may be a folder between it and `below`.

    Args:
        path: A file or folder; it need not exist.
        below: The folder whose inside is not trusted, such as that of a run; itself it may be a link. Without one,
            only `path` is looked at.

    Raises:
        UsageError: If there is a link; names it.
    """
    for part in (*(folder for folder in path.parents if below in folder.parents), path):
        if part.is_symlink():
            raise UsageError(f"{part} is a link to {os.readlink(part)!r}, and links are not followed here; remove it")
    return path


def local_file(name: str, what: str) -> Path:
    """A file's place as a person gives it, where libraries would take other things too.

    WebDataset and its like run ``pipe:COMMAND`` and fetch addresses by commands of the shell; here a place is a file.

    Args:
        name: What was given.
        what: What it is, for the message, such as "the shard".

    Raises:
        UsageError: If it is a command, an address, or can be no file's name.
    """
    if _SCHEME.match(name):
        raise UsageError(f"{what} {name!r} is a command or an address, and only files are read; download it first")
    if not name or name == "-" or "\0" in name:
        raise UsageError(f"{what} {name!r} can be no file's name; fix it")
    return Path(name)


def safe_name(text: str) -> str:
    """A file's name for any text: the text itself if it is letters, digits, "-" and "_", else its digest.

    Different texts get different names, whatever they are.
    """
    plain = text.replace("-", "").replace("_", "").isalnum() and len(text.encode()) <= LONGEST_NAME
    return text if plain and not _DIGEST.fullmatch(text) else sha256(text.encode(errors="surrogatepass")).hexdigest()
