import itertools
import random
import re
from collections.abc import Sequence

import pytest

from tasks.metrics import exact_match, normalise, vqa_accuracy
from tasks.metrics.vqa_accuracy import CONTRACTIONS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes", "yes"),
        ("  The  Dog ", "dog"),
        ("a\nred\tball", "red ball"),
        ("an apple and the pear", "apple and pear"),
        ("the", ""),
        ("", ""),
        (" \n\t ", ""),
        # numbers, by word
        ("None", "0"),
        ("zero", "0"),
        ("Two dogs", "2 dogs"),
        ("three four five six seven eight nine", "3 4 5 6 7 8 9"),
        ("ten", "10"),
        ("eleven", "eleven"),
        ("twenty-one", "twenty 1"),
        # a mark becomes a space ...
        ("red/white", "red white"),
        ("black-and-white", "black and white"),
        ("yes!", "yes"),
        ("what?no", "what no"),
        # ... unless it has a space beside it anywhere: then all of its kind vanish
        ("red/ white/blue", "red whiteblue"),
        ("x-ray - big", "xray big"),
        ("red, white,blue", "red whiteblue"),
        ("red-white, blue", "red white blue"),
        # a comma between digits makes every mark vanish
        ("1,000", "1000"),
        ("1,000-ish/year", "1000ishyear"),
        ("1, 000-ish", "1 000 ish"),
        # the space must be in the text as given, without its margins
        ("- x-y", "xy"),
        (" -x-y ", "x y"),
        # periods
        ("3.5 p.m.", "3.5 pm"),
        ("3.5", "3.5"),
        ("5.", "5"),
        ("U.S.A.", "usa"),
        ("a.5", "a.5"),
        ("." * 33, "."),
        ("." * 32, ""),
        # marks that are not in the official set
        ("5:30", "5:30"),
        ("50%", "50%"),
        ("#1 & $2", "#1 & $2"),
        ("dog's", "dog's"),
        # contractions
        ("dont", "don't"),
        ("couldntve", "couldntve"),
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("oclock", "o'clock"),
        ("Maam", "ma'am"),
        ("twas", "'twas"),
        ("yall", "y'all"),
        ("y'alld've", "y'all'd've"),
        ("somebody'd", "somebodyd"),
        ("'ows'at", "'ow's'at"),
        ("let's", "let's"),
        ("lets", "lets"),
        ("Im Ive", "im ive"),
        ("its", "its"),
        ("shed", "shed"),
        # order: articles go before contractions come, numbers before articles
        ("a cant", "can't"),
        ("A-1", "1"),
        ("😀 naïve", "😀 naïve"),
    ],
)
def test_normalise(text: str, expected: str) -> None:
    assert normalise(text) == expected


def test_contraction_table() -> None:
    assert len(CONTRACTIONS) == 120 - 4 - 2  # 4 keys with a capital I never match, 2 map to themselves
    assert all(key == key.lower() for key in CONTRACTIONS)
    odd = {key for key, word in CONTRACTIONS.items() if key.replace("'", "") != word.replace("'", "")}
    assert odd == set()
    assert {key for key, word in CONTRACTIONS.items() if word.count("'") <= key.count("'")} == {"somebody'd"}


@pytest.mark.parametrize(
    ("agreeing", "expected"), [(0, 0), (1, 30), (2, 60), (3, 90), (4, 100), (5, 100), (9, 100), (10, 100)]
)
def test_ten_annotators(agreeing: int, expected: float) -> None:
    answers = ["dog"] * agreeing + [f"other {i}" for i in range(10 - agreeing)]
    for shuffled in (answers, answers[::-1]):
        assert vqa_accuracy("Dog.", shuffled) == expected


@pytest.mark.parametrize(
    ("answers", "expected"),
    [(["dog"], 0), (["dog", "dog"], 100 / 3), (["dog"] * 3, 200 / 3), (["dog"] * 4, 100), (["dog", "cat"], 50 / 3)],
)
def test_few_annotators(answers: Sequence[str], expected: float) -> None:
    assert vqa_accuracy("dog", answers) == pytest.approx(expected, rel=1e-15)


def test_both_sides_are_normalised() -> None:
    assert vqa_accuracy("the Two!", ["2", "two", "Two.", "a two", "TWO"] * 2) == 100
    assert vqa_accuracy("cant", ["can't"] * 10) == 100
    assert vqa_accuracy("dog", ["dogs"] * 10) == 0


def test_normalised_even_where_all_annotators_agree() -> None:
    assert vqa_accuracy("yes,", ["yes"] * 10) == 100


@pytest.mark.parametrize("prediction", ["", " \n", "?!", "😀", "the"])
def test_odd_answers_are_wrong(prediction: str) -> None:
    assert vqa_accuracy(prediction, ["dog"] * 10) == 0


def test_an_empty_answer_agrees_with_an_annotator_who_said_nothing() -> None:
    assert vqa_accuracy("?", [""] * 10) == 100


def test_a_long_answer() -> None:
    assert vqa_accuracy("dog! " * 10_000, ["dog"] * 10) == 0


def test_how_many_periods_vanish_is_a_choice() -> None:
    text = "p." * 33 + "m"
    assert normalise(text) == "p" * 33 + ".m"
    assert normalise(text, most_periods=None) == "p" * 33 + "m"
    assert vqa_accuracy(text, ["p" * 33 + "m"] * 10) == 0
    assert vqa_accuracy(text, ["p" * 33 + "m"] * 10, most_periods=None) == 100
    assert vqa_accuracy("p" * 33 + "m", [text] * 10) == 0
    assert vqa_accuracy("p" * 33 + "m", [text] * 10, most_periods=None) == 100


def test_an_exact_match_is_one_of_the_answers_as_the_official_evaluation_writes_them() -> None:
    assert exact_match("the Two!", ["red", "2"]) == 100
    assert exact_match("red", ["crimson", "blue"]) == 0
    text, plain = "p." * 33 + "m", "p" * 33 + "m"
    for said, answer in ((text, plain), (plain, text)):
        assert exact_match(said, [answer]) == 0
        assert exact_match(said, [answer], most_periods=None) == 100


def test_no_answers() -> None:
    with pytest.raises(ValueError, match="annotator"):
        vqa_accuracy("dog", [])


# --- the definition once more, in the most literal way ----------------------------------------------------------------


def _literal_normalise(text: str) -> str:
    text = text.replace("\n", " ").replace("\t", " ").strip()
    original = text
    for mark in [
        ";",
        "/",
        "[",
        "]",
        '"',
        "{",
        "}",
        "(",
        ")",
        "=",
        "+",
        "\\",
        "_",
        "-",
        ">",
        "<",
        "@",
        "`",
        ",",
        "?",
        "!",
    ]:
        if original.find(mark + " ") >= 0 or original.find(" " + mark) >= 0 or re.search("[0-9],[0-9]", original):
            text = "".join(character for character in text if character != mark)
        else:
            text = "".join(" " if character == mark else character for character in text)
    kept, deleted = "", 0
    for character, following in itertools.zip_longest(text, text[1:], fillvalue=""):
        if character == "." and not following.isdigit() and deleted < 32:
            deleted += 1
        else:
            kept += character
    numbers = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5"}
    words = [numbers.get(word, word) for word in kept.lower().split()]
    words = [word for word in words if word not in ("a", "an", "the")]
    return " ".join({"dont": "don't", "cant": "can't", "isn't": "isn't"}.get(word, word) for word in words)


def _literal_accuracy(prediction: str, answers: Sequence[str]) -> float:
    records = [{"answer_id": i, "answer": _literal_normalise(answer)} for i, answer in enumerate(answers)]
    wanted, credit = _literal_normalise(prediction), []
    for record in records:
        others = [other for other in records if other != record]
        matching = [other for other in others if other["answer"] == wanted]
        credit.append(min(1, float(len(matching)) / 3))
    return 100 * sum(credit) / len(credit)


def test_equals_the_literal_definition() -> None:
    draw = random.Random(0)
    pieces = [*"ab15.,,-/ ?!'", " ", " ", "the", "two", "Dog", "dont", "cant", "1,0", ". ", "\n", "none", "isn't"]
    for _ in range(1_000):
        prediction = "".join(draw.choices(pieces, k=draw.randint(0, 8)))
        assert normalise(prediction) == _literal_normalise(prediction)
        answers = [draw.choice([prediction, "dog", "Two", prediction + "."]) for _ in range(draw.randint(1, 10))]
        assert vqa_accuracy(prediction, answers) == pytest.approx(_literal_accuracy(prediction, answers), abs=1e-12)
