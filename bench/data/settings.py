"""The keys of a dataset's row: what value each may have, in a TOML file and as text behind the "?" of a place."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench import registry
from bench.errors import UsageError


@dataclass(frozen=True)
class Kind:
    """What a value may be.

    Attributes:
        words: what it is, for messages: "a number from 1".
        holds: whether a value is one.
        from_texts: the value that texts behind "?" stand for, usually one; ValueError if they stand for none.
    """

    words: str
    holds: Callable[[Any], bool]
    from_texts: Callable[[Sequence[str]], Any]


@dataclass(frozen=True)
class Setting:
    """One key that a format's row may have.

    Attributes:
        kind: what its value may be.
        required: whether a row must have it.
        words: values that are words of ours where the kind is `PATH`, such as "imagenet" for class names.
    """

    kind: Kind
    required: bool = False
    words: tuple[str, ...] = ()


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)  # half a character


def _is_name(value: Any) -> bool:
    sound = _is_text(value) and value.isprintable() and "/" not in value
    return sound and bool(value.strip(". ")) and len(value) <= 100


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")


def _is_path(value: Any) -> bool:
    return all(map(can_be_path, value)) if _are_texts(value) else _is_text(value) and can_be_path(value)


def can_be_path(text: str) -> bool:
    """Whether a file system could hold this: no part is over 255 bytes long, nothing in it ends a name."""
    try:
        parts = os.fsencode(text).split(b"/")
    except UnicodeEncodeError:
        return False
    return "\0" not in text and len(text) < 4096 and all(len(part) <= 255 for part in parts)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(one, str) for one in value)


def _is_target(value: Any) -> bool:
    if not isinstance(value, Mapping) or value.keys() != {"text", "seed"}:
        return False
    seed = value["seed"]
    return isinstance(value["text"], str) and isinstance(seed, int) and 0 <= seed < 1 << 32


def _are_targets(value: Any) -> bool:
    return _are_texts(value) or (isinstance(value, list | tuple) and bool(value) and all(map(_is_target, value)))


def _are_columns(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(part, str) for pair in value.items() for part in pair)


def _one(texts: Sequence[str]) -> str:
    (text,) = texts
    return text


def _count(texts: Sequence[str]) -> int:
    text = _one(texts)
    if not (text.isascii() and text.isdecimal()) or len(text) > 18:
        raise ValueError(text)
    return int(text)


def _switch(texts: Sequence[str]) -> bool:
    return {"true": True, "false": False}[_one(texts).lower()]


def _texts(texts: Sequence[str]) -> list[str]:
    return list(texts)


def _texts_or_word(texts: Sequence[str]) -> str | list[str]:
    return texts[0] if len(texts) == 1 and "{c}" not in texts[0] else list(texts)


TEXT = Kind("a text", _is_text, _one)
COUNT = Kind("a number from 1", _is_count, _count)
NAME = Kind("a name of at most 100 letters, without /", _is_name, _one)
NUMBER = Kind("a number from 0", _is_number, lambda texts: float(_one(texts)))
SWITCH = Kind("true or false", lambda value: isinstance(value, bool), _switch)
PATH = Kind("a path, or a list of the names that a file goes by", _is_path, _one)
TEXTS = Kind("a list of texts", _are_texts, _texts)
PROMPTS = Kind("'imagenet' or a list of texts", lambda v: _is_text(v) or _are_texts(v), _texts_or_word)
TARGETS = Kind("a list of texts, or of {text = ..., seed = ...}", _are_targets, _texts)
SCORING = Kind("annotators or exact", lambda value: value in ("annotators", "exact"), _one)
IMAGE_TEXT = Kind("path or base64", lambda value: value in ("path", "base64"), _one)
COLUMNS = Kind("a table of ROLE = COLUMN", _are_columns, _one)

OF_EVERY_ROW: Mapping[str, Setting] = {
    "about": Setting(TEXT),
    "samples": Setting(COUNT),
    "selection": Setting(TEXT),
    "embedded": Setting(TEXT),
    "native_size": Setting(SWITCH),
    "broken_below": Setting(NUMBER),
    "scoring": Setting(SCORING),
    "demonstrations": Setting(TEXT),
}


def from_texts(texts: Mapping[str, Sequence[str]], settings: Mapping[str, Setting], where: str) -> dict[str, Any]:
    """The values that texts stand for, each of its setting's kind.

    Args:
        texts: by key, what was given for it; a key may be given several times.
        settings: of the format.
        where: what holds the texts, for messages.

    Raises:
        UsageError: an unknown key, or a text that is no value of it.
    """
    known = {**OF_EVERY_ROW, **settings}
    found = {}
    for key, given in texts.items():
        if key not in known:
            raise registry.unknown(f"setting of {where}", key, known)
        try:
            found[key] = known[key].kind.from_texts(given)
        except (ValueError, KeyError):
            raise _wrong(where, key, known[key], given[0] if len(given) == 1 else list(given)) from None
    check(found, settings, where)
    return found


def check(row: Mapping[str, Any], settings: Mapping[str, Setting], where: str) -> None:
    """Refuse a row with a key that is not known, or with a value of another kind.

    Args:
        row: keys and values, without its format.
        settings: of the format.
        where: what the row belongs to, for messages.

    Raises:
        UsageError: it is as above.
    """
    known = {**OF_EVERY_ROW, **settings}
    for key, value in row.items():
        if key not in known:
            raise registry.unknown(f"setting of {where}", key, known)
        if not known[key].kind.holds(value):
            raise _wrong(where, key, known[key], value)


def check_whole(row: Mapping[str, Any], settings: Mapping[str, Setting], where: str) -> None:
    """Refuse a row without a key that its format requires.

    Raises:
        UsageError: it lacks one.
    """
    for key, setting in settings.items():
        if setting.required and key not in row:
            raise UsageError(f'{where} needs {key}: say it in the dataset\'s row, or after the "?" of its place')


def _wrong(where: str, key: str, setting: Setting, value: Any) -> UsageError:
    return UsageError(f"{where}: {key} must be {setting.kind.words}, got {value!r}")
