"""What the cells of a table say: references, choices, right options, texts."""

import ast
import io
import json
import math
import re
import tokenize
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from bench.errors import UsageError
from tasks.metrics.letters import LETTERS
from tasks.metrics.yes_no import NO, YES

_BRACKETS = ("[]", "()", "{}")
_LIST, _QUOTED = re.compile(r"""\[\s*["']"""), re.compile(r"""[\[({]\s*["'{]""")  # how lists stored as text begin


def identifier(value: Any, role: str, where: str) -> str:
    """An id as text.

    Raises:
        UsageError: it is no number and no text.
    """
    if not isinstance(value, int | float | str):
        raise UsageError(f"{where}: {role} is {str(value)[:60]!r}, not an id; choose another column")
    return str(value)


def text(value: Any, role: str, where: str) -> str:
    """A text.

    Raises:
        UsageError: it is something else.
    """
    if not isinstance(value, str):
        raise UsageError(f"{where}: {role} is {str(value)[:60]!r}, not a text; choose another column")
    return value


def references(value: Any, role: str, where: str) -> tuple[str, ...]:
    """Answers or captions: a text, a list of them, a list of records with an ``answer``, or a list stored as text.

    Raises:
        UsageError: there are none, or one is no text.
    """
    if isinstance(value, Mapping):
        value = value.get("answer")
    if isinstance(value, str):
        value = listed(value, f"{where}: {role}")
    several = value if isinstance(value, list) else [] if value is None else [value]
    texts = tuple(text(v.get("answer") if isinstance(v, Mapping) else v, role, where) for v in several)
    if not texts:
        raise UsageError(f"{where} has no {role} to score against; remove the row, or choose a split that has them")
    return texts


def yes_or_no(value: Any, where: str) -> str:
    """The answer to a yes-or-no question, in small letters.

    Raises:
        UsageError: it is neither.
    """
    said = value.strip().casefold() if isinstance(value, str) else value
    if said not in (YES, NO):
        raise UsageError(f"{where}: the answer is {str(value)[:60]!r}; it must be yes or no")
    return str(said)


def choices(values: Sequence[Any], where: str) -> tuple[str, ...]:
    """The options of a multiple-choice question: one cell that lists them, or a cell for each; empty ones end them.

    Raises:
        UsageError: there are fewer than two or more than there are letters, or one is no text.
    """
    if len(values) == 1:
        values = listed(values[0], f"{where}: choices") if isinstance(values[0], str) else values[0] or []
    filled = [_option(value) for value in values]
    while filled and filled[-1] in (None, ""):
        filled.pop()
    options = tuple(text(value, "one of the choices", where) for value in filled)
    if not 2 <= len(options) <= len(LETTERS) or "" in options:
        raise UsageError(f"{where}: choices must be 2 to {len(LETTERS)} texts, not {str(options)[:80]}")
    return options


def _option(value: Any) -> Any:
    """A number as text; NaN, which stands for an empty cell in a column of numbers, as nothing."""
    if isinstance(value, float) and math.isnan(value):
        return None
    return str(value) if isinstance(value, int | float) else value


def right_option(value: Any, options: Sequence[str], where: str) -> int:
    """The index of the right option: it is told by its index from 0, by its letter, or by its text.

    Raises:
        UsageError: nothing is told, or none of the options.
    """
    if value in (None, ""):
        raise UsageError(f"{where} has no answer to score against; choose a split that has them")
    index = value
    if isinstance(value, str):
        plain = value.strip()
        letter = plain.upper() in list(LETTERS[: len(options)])
        index = LETTERS.index(plain.upper()) if letter else int(plain) if _is_index(plain) else None
        index = options.index(plain) if plain in options and not letter else index
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(options):
        raise UsageError(f"{where}: answer {str(value)[:60]!r} names none of its {len(options)} choices")
    return index


def _is_index(said: str) -> bool:
    return said.isdecimal() and len(said) <= len(str(len(LETTERS)))


def listed(said: str, where: str) -> list[Any]:
    """The texts of a list that was stored as text, as JSON or as Python writes it; one text otherwise.

    Raises:
        UsageError: it looks like a list of texts, but is not a whole one.
    """
    bare = said.strip()
    closed = bare[:1] + bare[-1:] in _BRACKETS
    if not closed and not _LIST.match(bare):
        return [said]
    value = next((value for value in (_json(bare), _literal(bare)) if value is not None), None)
    if isinstance(value, list | tuple) and value and all(isinstance(one, str) for one in value):
        return list(value)
    if value is None and not _QUOTED.match(bare):
        return [said]  # such as "[unclear]": words in brackets
    raise UsageError(f"{where} is {bare[:60]!r}, which is no list of texts; store a list, or its JSON, in that column")


def _json(said: str) -> Any:
    try:
        return json.loads(said)
    except (ValueError, RecursionError):
        return None


def _literal(said: str) -> Any:
    """The value of a Python literal; None where two texts stand side by side, which Python would make into one."""
    try:
        tokens = [token.type for token in tokenize.generate_tokens(io.StringIO(said).readline)]
        value = ast.literal_eval(said)
    except (ValueError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError):
        return None
    return None if (tokenize.STRING, tokenize.STRING) in pairwise(tokens) else value
