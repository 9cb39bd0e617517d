"""Where a result comes from: the state of the code."""

import subprocess
from functools import cache
from pathlib import Path
from typing import Any


@cache
def code_state() -> dict[str, Any]:
    """Commit of the source tree and whether it is dirty, as of the first call; None outside a checkout."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *words], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--", ".."))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}
