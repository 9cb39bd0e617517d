"""Whether a process is writing a run, as far as this machine can tell."""

import fcntl
import os
import platform
import re
from pathlib import Path

from bench.records.files import RecordsError, open_inside

_HOLDER = re.compile(r"process \d+ on (.+)")


def is_written(directory: Path) -> bool | None:
    """Whether the lock of a run's directory is held; None where the last holder is another machine's process."""
    path = directory / "lock"
    try:
        descriptor = open_inside(path, os.O_RDONLY)
    except (OSError, RecordsError):
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        found = _HOLDER.match(os.read(descriptor, 256).decode(errors="replace"))
        is_elsewhere = found is not None and found[1].strip() not in (platform.node(), "this machine")
        return None if is_elsewhere else False
    except OSError:
        return True
    finally:
        os.close(descriptor)
