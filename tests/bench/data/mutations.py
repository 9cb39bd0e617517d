"""Damaged inputs: bytes cut, flipped and spliced, and JSON whose values are others than they should be."""

import json
import random
from collections.abc import Callable
from typing import Any

from tests.bench.data.small import HTML, LFS

WORDS = ["../../outside.png", "/etc/passwd", "a" * 300, "\ud800", "", "\0", "..", "pipe:true", "yes", "9" * 30, "7.png"]
VALUES = [None, True, False, -1, 0, 1, 7, 2**70, 1.5, float("nan"), [], {}, [[]], {"a": [1]}, *WORDS]


def damaged_bytes(content: bytes, rng: random.Random) -> bytes:
    """The content with one thing wrong."""
    at, length = rng.randrange(len(content) + 1), rng.choice([1, 2, 4, 16, 64, 512])
    junk = bytes(rng.randrange(256) for _ in range(rng.choice([1, 4, length])))
    ways: list[Callable[[], bytes]] = [
        lambda: content[:at],
        lambda: content[at:],
        lambda: content[:at] + junk + content[at:],
        lambda: content[:at] + junk + content[at + len(junk) :],
        lambda: content[:at] + content[at + length :],
        lambda: content[:at] + content[at : at + length] * 2 + content[at + length :],
        lambda: content[:at] + bytes(length) + content[at + length :],
        lambda: rng.choice([b"", HTML, LFS, b"\xff\xfe", b"[" * 100_000, b"9" * 5_000, content + content]),
    ]
    return rng.choice(ways)()


def damaged_value(value: Any, rng: random.Random) -> Any:
    """The value with one thing in it, at any depth, replaced, removed or doubled."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
        return rng.choice(VALUES)
    key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
    changed = dict(value) if isinstance(value, dict) else list(value)
    way = rng.random()
    if way < 0.7:
        changed[key] = damaged_value(value[key], rng)
    elif way < 0.85:
        del changed[key]
    elif isinstance(changed, list):
        changed.insert(key, value[key])
    else:
        changed[str(rng.choice(WORDS))] = value[key]
    return changed


def damaged_json(content: bytes, rng: random.Random) -> bytes:
    """A JSON file that is not whole, or whole and wrong."""
    if rng.random() < 0.3:
        return damaged_bytes(content, rng)
    value = json.loads(content)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        value = damaged_value(value, rng)
    return json.dumps(value).encode()
