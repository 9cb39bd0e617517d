"""VQA accuracy (Antol et al. 2015, arXiv 1505.00468), with the text normalisation of its official evaluation.

The quirks of the official evaluation are kept, for published numbers contain them; each is named where it happens.
"""

import re
from collections.abc import Sequence

AGREEING = 3  # annotators who must give an answer for it to count in full
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
ARTICLES = frozenset(["a", "an", "the"])
NUMBERS = {
    "none": "0",
    **{word: str(n) for n, word in enumerate("zero one two three four five six seven eight nine ten".split())},
}
DIGIT_COMMA_DIGIT = re.compile(r"\d,\d")
PERIOD = re.compile(r"\.(?!\d)")
MOST_PERIODS = 32  # deleted from one text: the official code passes a regular expression flag where the count belongs

CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're you've
""".split()


def _misspellings(word: str) -> list[str]:
    """A contraction with any one of its apostrophes missing."""
    return [word[:i] + word[i + 1 :] for i, character in enumerate(word) if character == "'"]


# "somebody'd" loses its apostrophe instead of gaining one; entries of the official table that begin with a capital I
# can never be met in text in lower case and are left out.
CONTRACTIONS = {wrong: word for word in CONTRACTED for wrong in _misspellings(word)} | {"somebody'd": "somebodyd"}


def normalise(text: str, most_periods: int | None = MOST_PERIODS) -> str:
    """Bring an answer to the form in which answers are compared.

    Args:
        text: an answer of a model or an annotator.
        most_periods: how many periods are deleted at most; None for all.

    Returns:
        Words in lower case, one space apart, without articles and punctuation, numbers to ten as digits.

    >>> normalise("The two dogs, I think.")
    '2 dogs i think'
    """
    text = _without_punctuation(text.replace("\n", " ").replace("\t", " ").strip())
    text = PERIOD.sub("", text, count=most_periods or 0)  # after a digit too, as officially
    words = [NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def _without_punctuation(text: str) -> str:
    """Delete or blank marks; which, depends on the whole text and not on the place of a mark.

    All occurrences of a mark vanish if one of them is next to a space, or if a comma between digits is anywhere in the
    text; otherwise they become spaces.
    """
    vanish_all = DIGIT_COMMA_DIGIT.search(text) is not None
    kept = text
    for mark in PUNCTUATION:
        vanish = vanish_all or f"{mark} " in text or f" {mark}" in text
        kept = kept.replace(mark, "" if vanish else " ")
    return kept


def vqa_accuracy(prediction: str, answers: Sequence[str], *, most_periods: int | None = MOST_PERIODS) -> float:
    """How many annotators agree with an answer, in percent, unrounded.

    For each annotator, min(1, agreeing others / 3); then the mean over annotators.

    >>> vqa_accuracy("The red.", ["red"] * 4 + ["blue"] * 6)
    100.0
    >>> round(vqa_accuracy("red", ["red"] * 2 + ["blue"] * 8), 1)
    60.0

    Args:
        prediction: the model's answer.
        answers: one answer for each annotator (usually ten); equal texts are different annotators.
        most_periods: as of `normalise`; the official 32 by default.

    Returns:
        A number from 0 to 100.

    Raises:
        ValueError: no answers.
    """
    if not answers:
        raise ValueError("a question without annotator answers has no VQA accuracy")
    wanted = normalise(prediction, most_periods)
    agrees = [normalise(answer, most_periods) == wanted for answer in answers]
    points = sum(min(AGREEING, sum(agrees) - own) for own in agrees)
    return 100 * points / (AGREEING * len(agrees))


def exact_match(prediction: str, answers: Sequence[str], *, most_periods: int | None = MOST_PERIODS) -> float:
    """Whether an answer is one of those given, after the official normalisation: 100 or 0.

    >>> exact_match("The red.", ["red"]), exact_match("blue", ["red", "crimson"])
    (100.0, 0.0)

    Args:
        prediction: the model's answer.
        answers: all that are right.
        most_periods: as of `normalise`.

    Raises:
        ValueError: no answers.
    """
    if not answers:
        raise ValueError("a question without answers has no exact match")
    wanted = normalise(prediction, most_periods)
    return 100.0 * any(normalise(answer, most_periods) == wanted for answer in answers)
