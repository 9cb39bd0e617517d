"""What says how much of something wanted an answer holds: its name is part of the record, for it makes the number."""

import re
from collections.abc import Mapping, Sequence
from typing import Protocol

WORDS = "words"
_WORD = re.compile(r"[^\W_]+")
_IRREGULAR = {"men": "man", "women": "woman", "people": "person", "children": "child", "mice": "mouse", "feet": "foot"}
_SAME = {"ies": "y", "ches": "ch", "shes": "sh", "sses": "ss", "xes": "x", "s": ""}  # endings of plurals
_SINGULAR = ("ss", "us", "is")  # endings that are none


class Judge(Protocol):
    """Compares an answer with what was wanted.

    Attributes:
        name: as in ``--judge``, with all that moves its judgement.
    """

    name: str

    def __call__(self, said: str, wanted: Sequence[str]) -> float:
        """How much of what was wanted is said: 1 for all of it, 0 for nothing."""

    def digests(self) -> Mapping[str, str]:
        """sha256 of the weights behind it, by name."""


class Words:
    """The share of keywords of which all words occur in the answer; capitals, punctuation and plurals do not matter.

    M-Attack asks GPT-4o, which also accepts words of similar meaning: this judge is stricter, and the same for ever.

    >>> Words()("Two dogs on the beach.", ["dog", "sandy beach", "Beach", "cat"])
    0.5
    """

    name = WORDS

    def __call__(self, said: str, wanted: Sequence[str]) -> float:
        """The share of ``wanted``, one keyword each."""
        there = _words(said)
        return sum(_words(keyword) <= there for keyword in wanted) / len(wanted)

    def digests(self) -> Mapping[str, str]:
        """There are no weights."""
        return {}


def _words(text: str) -> set[str]:
    return {_singular(word) for word in _WORD.findall(text.lower())}


def _singular(word: str) -> str:
    """A word without the ending of a plural.

    >>> [_singular(word) for word in ("dogs", "boxes", "berries", "glass", "bus", "people")]
    ['dog', 'box', 'berry', 'glass', 'bus', 'person']
    """
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    for ending, singular in _SAME.items() if not word.endswith(_SINGULAR) and len(word) > 3 else ():
        if word.endswith(ending):
            return word.removesuffix(ending) + singular
    return word


def words(settings: Mapping[str, str], encoders: str) -> Words:
    """The judge "words", which has no settings.

    Raises:
        ValueError: some are given.
    """
    if settings:
        raise ValueError("judge 'words' has no settings")
    return Words()
