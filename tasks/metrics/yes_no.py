"""Yes or no: how an answer is read, and what POPE counts (Li et al. 2023, arXiv 2305.10355)."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

YES, NO = "yes", "no"
_WORD = re.compile(r"[a-z]+")


def first_word(answer: str) -> str | None:
    """The rule of the protocol "strict": "yes" or "no" if the answer begins with that word, else None.

    >>> first_word("No, there is none."), first_word("Yes"), first_word("a red circle")
    ('no', 'yes', None)
    """
    found = _WORD.search(answer.casefold())
    return found[0] if found is not None and found[0] in (YES, NO) else None


def anything_but_no(answer: str) -> str:
    """The rule of the code published with arXiv 2402.12336, of the protocol "paper".

    "no" if, before the first period and with commas deleted, one of the words separated by spaces is "No", "no" or
    "not"; anything else is "yes", an empty answer too.

    >>> anything_but_no("There is not."), anything_but_no("a red circle"), anything_but_no("NO")
    ('no', 'yes', 'yes')
    """
    words = answer.split(".")[0].replace(",", "").split(" ")
    return NO if {"No", "no", "not"} & set(words) else YES


RULES: Mapping[str, Callable[[str], str | None]] = {"first-word": first_word, "anything-but-no": anything_but_no}
"""How an answer is read, by the name that a protocol gives it."""


class YesNoCounts(NamedTuple):
    """POPE's numbers in percent; "yes" is the positive class, None stands where a number would divide by zero.

    Attributes:
        accuracy: answers that are right; what cannot be read as yes or no is wrong.
        precision: of the answers "yes", those that are right.
        recall: of the questions with the answer "yes", those answered so.
        f1: harmonic mean of the two; 0 if no "yes" is right.
        yes_rate: answers "yes".
        unreadable: answers that are neither.
    """

    accuracy: float
    precision: float | None
    recall: float | None
    f1: float | None
    yes_rate: float
    unreadable: float


def yes_no_counts(said: Sequence[str | None], wanted: Sequence[str]) -> YesNoCounts:
    """Count answers against the right ones.

    Args:
        said: "yes", "no", or None for what could not be read.
        wanted: "yes" or "no", one for each answer.

    Raises:
        ValueError: no answers, or another number of them than of questions.

    >>> yes_no_counts(["yes", "yes", "no", None], ["yes", "no", "no", "yes"])[:4]
    (50.0, 50.0, 50.0, 50.0)
    """
    if not said or len(said) != len(wanted):
        raise ValueError(f"{len(said)} answers to {len(wanted)} questions")
    pairs = list(zip(said, wanted, strict=True))
    hits = sum(s == w == YES for s, w in pairs)
    positive, relevant = sum(s == YES for s in said), sum(w == YES for w in wanted)

    def percent(count: int, of: int) -> float | None:
        return 100 * count / of if of else None

    return YesNoCounts(
        accuracy=100 * sum(s == w for s, w in pairs) / len(pairs),
        precision=percent(hits, positive),
        recall=percent(hits, relevant),
        f1=percent(2 * hits, positive + relevant),
        yes_rate=100 * positive / len(pairs),
        unreadable=100 * sum(s is None for s in said) / len(pairs),
    )
