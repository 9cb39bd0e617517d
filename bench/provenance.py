"""Where a result comes from: the state of the code."""

import hashlib
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("attacks", "bench", "tasks")


@cache
def code_state() -> dict[str, Any]:
    """Commit of the source tree and whether its code is dirty (None outside a checkout), and the digest of the sources.

    Results that lie in the checkout do not make the code dirty. As of the first call: of two runs of one process, both
    were made by the code that was loaded.
    """

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    source = source_digest(ROOT)
    try:
        commit, dirty = git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", *SOURCES))
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None, "source": source}
    return {"commit": commit, "dirty": dirty, "source": source}


def source_digest(root: Path) -> str:
    """sha256 over names and contents of the Python and TOML files of the three packages under ``root``."""
    digest = hashlib.sha256()
    paths = (p for package in SOURCES for kind in ("*.py", "*.toml") for p in (root / package).rglob(kind))
    for path in sorted(paths):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()
