"""Answers on disk: what was answered once is not asked again, whatever became of the run."""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from bench.records.files import RecordsError, explained, read_inside, write_atomically
from bench.trust.places import no_links
from tasks.calls import EMPTY, ERROR, Call


class Kept(msgspec.Struct, frozen=True):
    """A kept answer, or a refusal."""

    text: str
    call: Call


class Cache:
    """One file per call, named after endpoint, model, whole request body and number of the repetition."""

    def __init__(self, folder: Path, url: str, model: str) -> None:
        self.folder, self._about = folder, (url, model)

    def path(self, body: Mapping[str, Any], repetition: int) -> Path:
        """Where the answer to a request lies."""
        text = json.dumps([*self._about, body, repetition], sort_keys=True)
        name = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        return self.folder / name[:2] / f"{name}.json"

    def get(self, path: Path) -> Kept | None:
        """The kept answer at a path; None where there is none that can be read."""
        try:
            return msgspec.json.decode(read_inside(no_links(path, self.folder)), type=Kept)
        except (OSError, ValueError, RecursionError, RecordsError, msgspec.MsgspecError):
            return None

    def put(self, path: Path, kept: Kept) -> None:
        """Keep an answer; errors and empty answers are not kept.

        Raises:
            RecordsError: the system refuses.
        """
        if kept.call.outcome in (ERROR, EMPTY):
            return
        with explained("write", path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(no_links(path, self.folder), msgspec.json.encode(kept).decode())
