"""What a run asked: samples.jsonl in its directory, one JSON object per sample, written once when the run begins.

    {"id": "q7", "prompt": "What colour is the bar?", "references": ["red", "dark red"]}

It is for readers of the results: no score of a sample is computed from it.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from bench.records.files import RecordsError, read_inside, unlinked, write_atomically

FILE = "samples.jsonl"


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One sample.

    Attributes:
        id: The sample's, as in `Record.sample_id`.
        prompt: The question; empty where a task asks none.
        references: What an answer is compared with: answers, captions, the class, the target text.
        categories: What a table may split scores by; absent from the line where there are none.
        captions: What people say of the image, where the references are something else.
    """

    id: str
    prompt: str
    references: tuple[str, ...]
    categories: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()


def write_samples(directory: Path, samples: Iterable[Asked]) -> None:
    """Write the file, unless it is there."""
    path = unlinked(directory / FILE, directory)
    if not path.exists():
        write_atomically(path, "".join(json.dumps(_line(sample)) + "\n" for sample in samples))


def _line(sample: Asked) -> dict[str, Any]:
    """What JSON holds of a sample; categories and captions only where there are any."""
    said: dict[str, Any] = {"id": sample.id, "prompt": sample.prompt, "references": list(sample.references)}
    more = {"categories": list(sample.categories), "captions": list(sample.captions)}
    return said | {key: value for key, value in more.items() if value}


def read_samples(directory: Path) -> dict[str, Asked]:
    """Sample id -> what was asked; empty for a run from before it was kept.

    Raises:
        RecordsError: If it is a link, or a line is damaged.
    """
    path = directory / FILE
    if not path.exists():
        return {}
    lines = read_inside(path).splitlines()
    found = {}
    for number, line in enumerate(lines, start=1):
        try:
            asked = msgspec.convert(json.loads(line), Asked)  # json reads lone surrogates, which msgspec refuses
        except (ValueError, RecursionError, msgspec.ValidationError) as error:
            raise RecordsError(f"{path}, line {number}: {error}; delete the file: only the report reads it") from error
        found[asked.id] = asked
    return found
