"""Official VQA accuracy (Antol et al. 2015, arXiv 1505.00468), with the normalisation of its released evaluation."""

import re
from collections import Counter
from collections.abc import Sequence

_ARTICLES = {"a", "an", "the"}
_DIGITS = {
    "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6",
    "seven": "7", "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip
_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_MOST_PERIODS = 32  # the released code passes a flag where the number of replacements belongs
_FULL_FORMS = (
    "aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's isn't "
    "it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've shouldn't "
    "somebody'll somebody's someone'd someone'll someone's something'd something'll that's there'd there're there's "
    "they'd they'll they're they've 'twas wasn't we've weren't what'll what're what's what've when's where'd where's "
    "where've who'd who'll who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've"
).split()
_DOUBLE_FORMS = (
    "couldn't've hadn't've he'd've it'd've mightn't've 'ow's'at she'd've shouldn't've somebody'd've someone'd've "
    "something'd've there'd've they'd've we'd've who'd've wouldn't've y'all'll y'all'd've you'd've"
).split()


def _without_one_apostrophe(word: str) -> list[str]:
    return [word[:i] + word[i + 1 :] for i, letter in enumerate(word) if letter == "'"]


_CONTRACTIONS = {
    **{full.replace("'", ""): full for full in _FULL_FORMS},
    **{short: full for full in _DOUBLE_FORMS for short in _without_one_apostrophe(full)},
    "somebody'd": "somebodyd",  # so in the released table
}


def normalise(text: str) -> str:
    """An answer as the evaluation compares it: marks, periods, case, number words, articles, contractions.

    A mark is deleted if it stands beside a space anywhere in the text, or if the text holds a comma between digits;
    else it becomes a space. The released code always normalises, though its paper does so on disagreement only.
    """
    text = text.replace("\n", " ").replace("\t", " ").strip()
    without = text
    grouped = re.search(r"\d,\d", text) is not None
    for mark in _MARKS:
        beside_space = f"{mark} " in text or f" {mark}" in text
        without = without.replace(mark, "" if beside_space or grouped else " ")
    without = re.sub(r"\.(?!\d)", "", without, count=_MOST_PERIODS)
    words = [_DIGITS.get(word, word) for word in without.lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Accuracy of a prediction in percent (0 to 100), unrounded.

    The mean over annotators of min(1, m / 3), where m counts the *other* annotators who gave the prediction.

    Args:
        prediction: the model's answer.
        answers: one an annotator, usually ten.

    Raises:
        ValueError: there are no answers.
    """
    if not answers:
        raise ValueError("VQA accuracy needs at least one annotator's answer")
    said = normalise(prediction)
    matches = Counter(normalise(answer) for answer in answers)[said]
    others, matching = len(answers) - matches, matches
    total = others * min(1.0, matches / 3) + matching * min(1.0, (matches - 1) / 3)
    return 100.0 * total / len(answers)
