"""Multiple choice: which option an answer names (ScienceQA, Lu et al. 2022, arXiv 2209.09513)."""

import re
from collections.abc import Sequence

LETTERS = "ABCDE"
_ALONE = re.compile(r"^\(?([A-E])(?:[.:,)]|$)")  # no space: "A red circle" begins with an article
_ANSWER_IS = re.compile(r"answer is:? ?\(?([A-E])\)?", re.IGNORECASE)
_PUBLISHED = re.compile(r"The answer is ([A-Z]).")


def stated_letter(answer: str, choices: Sequence[str]) -> int | None:
    """The rule of the protocol "strict": the index of the option that an answer names, None if it names none.

    In this order: a letter at the beginning, as in "B", "(B)" or "B. red"; the one letter in "the answer is B"; the
    text of one option, capitals and a final period aside. A letter beyond the options names none.

    >>> [stated_letter(said, ["red", "blue"]) for said in ("B", "(A) red", "The answer is B.", "Blue.", "C", "none")]
    [1, 0, 1, 1, None, None]
    """
    found = _ALONE.match(answer.strip())
    letters = {found[1]} if found else {letter.upper() for letter in _ANSWER_IS.findall(answer)}
    if len(letters) == 1:
        return _index(letters.pop(), choices)
    plain = answer.strip().rstrip(".").casefold()
    matches = [k for k, choice in enumerate(choices) if choice.strip().rstrip(".").casefold() == plain]
    return matches[0] if len(matches) == 1 else None


def published_letter(answer: str, choices: Sequence[str]) -> int | None:
    """The rule of the code published with arXiv 2402.12336 (LLaVA's), of the protocol "paper".

    The whole answer is a letter A to E; else it begins with such a letter, a period and a space; else "The answer is
    X." occurs exactly once. Anything else names no option, nor does a letter beyond the options.

    >>> [published_letter(said, ["red", "blue"]) for said in ("B", "B. blue", "The answer is A.", "(B)", "b")]
    [1, 1, 0, None, None]
    """
    if answer in list(LETTERS):
        return _index(answer, choices)
    if answer[:1] in list(LETTERS) and answer[1:3] == ". ":
        return _index(answer[0], choices)
    found = _PUBLISHED.findall(answer)
    return _index(found[0], choices) if len(found) == 1 else None


def _index(letter: str, choices: Sequence[str]) -> int | None:
    index = ord(letter) - ord("A")
    return index if 0 <= index < len(choices) else None
