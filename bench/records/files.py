"""Files that survive: atomic replacement, durable directories, and system errors in words."""

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from bench.errors import UsageError
from bench.trust.places import no_links

_REMEDIES = {
    errno.ENOSPC: "free space there, then give the same command again: it resumes",
    errno.EDQUOT: "the disk quota is used up; free space, then give the same command again: it resumes",
    errno.EACCES: "make it writable, or choose another output directory",
    errno.EPERM: "make it writable, or choose another output directory",
    errno.EROFS: "the file system is read-only; choose another output directory",
    errno.ENOLCK: "the file system has no locks; choose an output directory on a local disk",
    errno.EOPNOTSUPP: "the file system has no locks; choose an output directory on a local disk",
    errno.ENOENT: "check the path",
    errno.ELOOP: "links inside a run are not followed; remove it",
}


class RecordsError(Exception):
    """A run directory cannot be written, read or trusted; the text names the path and what to do."""


@contextlib.contextmanager
def explained(action: str, path: Path) -> Iterator[None]:
    """Turn an `OSError` inside the block into a `RecordsError` that names the path and a remedy."""
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "see the system's message")
        raise RecordsError(f"cannot {action} {path}: {error.strerror or error} ({remedy})") from error


def unlinked(path: Path, run: Path) -> Path:
    """`path`, which lies inside the run's directory, where no link is followed.

    Raises:
        RecordsError: If it, or a folder between the two, is a link.
    """
    try:
        with explained("use", path):
            return no_links(path, run)
    except UsageError as error:
        raise RecordsError(str(error)) from error


def open_inside(path: Path, flags: int) -> int:
    """The descriptor of a regular file of a run, never of what a link there leads to."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RecordsError(f"{path} is no file; remove it")
    return descriptor


def check_inside(path: Path) -> Path:
    """`path`, which must be a regular file of a run: what opens it by name waits for no pipe.

    Raises:
        RecordsError: If it cannot be opened, or is a link or no file.
    """
    with explained("read", path):
        os.close(open_inside(path, os.O_RDONLY))
    return path


def read_inside(path: Path) -> bytes:
    """The content of a regular file of a run.

    Raises:
        RecordsError: If it cannot be read, or is a link or no file.
    """
    with explained("read", path), os.fdopen(open_inside(path, os.O_RDONLY), "rb") as file:
        return file.read()


def write_atomically(path: Path, text: str) -> None:
    """Replace the file at `path` by `text`, or leave it as it was.

    Raises:
        RecordsError: If the system refuses; names the path and a remedy.
    """
    path = path.resolve()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with explained("write", path):
        try:
            temporary.unlink(missing_ok=True)  # of a process that died, or a planted link
            with temporary.open("x", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            if path.exists():
                shutil.copymode(path, temporary)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make what was created or renamed in `directory` survive a power loss."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
