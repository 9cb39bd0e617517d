import json
import random
import string
from pathlib import Path

import pytest

from tasks.metrics import tokenize

GOLDEN = json.loads((Path(__file__).parent / "golden_ptb.json").read_text())


def test_golden_captions() -> None:
    wrong = {
        case["caption"]: tokenize(case["caption"]) for case in GOLDEN if tokenize(case["caption"]) != case["words"]
    }
    assert not wrong
    assert len(GOLDEN) > 600


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A man isn't riding the dog's skateboard.", "a man is n't riding the dog 's skateboard"),
        ("A black-and-white T-shirt, $5.", "a black-and-white t-shirt $ 5"),
        ("a man (left) eats", "a man -lrb- left -rrb- eats"),
        ("The U.S. flag, Mr. Smith etc.", "the u.s. flag mr. smith etc."),
        ("vitamin C. The end", "vitamin c the end"),
        ("wow!!! really?! yes!", "wow !!! really ?! yes"),
        ("I cannot go, gonna stay", "i can not go gon na stay"),
        ("line one\nline two\r\nthree", "line one line two three"),
        ("call (650) 555-1212", "call -lrb-650-rrb- 555-1212"),
        ("it’s “fine”", "it 's fine"),
    ],
)
def test_worked_examples(caption: str, words: str) -> None:
    assert tokenize(caption) == words.split()


@pytest.mark.parametrize("caption", ["", " ", "\n", " \t\u00a0\u3000 ", ".", "... ,;:--'`\"", "😀", "\0", "\u200b"])
def test_without_words(caption: str) -> None:
    assert tokenize(caption) == []


def test_a_long_answer() -> None:
    assert tokenize("dog! " * 10_000) == ["dog"] * 10_000


@pytest.mark.parametrize("unit", ["dog,", "a@", "<a ", "😀", "'", "1/2 ", "http://"])
def test_a_long_odd_answer_ends(unit: str) -> None:
    assert all(word == "".join(word.split()) for word in tokenize(unit * 2_000))


def test_words_hold_no_white_space_and_no_capitals() -> None:
    draw = random.Random(1)
    for _ in range(2_000):
        caption = "".join(draw.choices(string.printable + "é½’“…😀\u00a0\u2028", k=20))
        for word in tokenize(caption):
            assert word == word.lower()
            assert word.split() == [word]


# --- against the official tokenizer -----------------------------------------------------------------------------------

PIECES = """
    a the cat dog man's woman t-shirt black and/or red, Mr. Mrs. St. Dr. inc. etc. e.g. U.S. u.s. a.m. 10:30 5pm 1/2 2
    3.5 1,000 100% $5 don't can't cannot gonna it's dogs' they're we've I'm o'clock 'em '90s 90's "stop" 'go' (a) [b] --
    - ... … – — ’s don’t ‘hi’ “ok” & &amp; AT&T #1 @home www.a.com http://a.com/b-c a@b.com :) ;-) !! ?! ? ! . , ; : /
    \\ * + = ~ | _ ° © é café x² ½ £5 €5 😀 ♥ 7-eleven twenty-one rock'n'roll y'all No. Jan. J.K. C++ <b> 5'6" 5lbs.
    well- -ish a/b/c w/ w/o O'Brien d'or 'tis n't The It A In pro-
""".split()
LETTERS = [
    *"aabbcdlnosty AB.,'’-–/&@#$5517:;!?()\"`*_+=<>%é½ ",
    "'s",
    "n't",
    "'re",
    ". ",
    "The",
    "Mr",
    "U.S.",
    "no",
    "..",
]


def _fuzz(kind: str, seed: int, count: int) -> list[str]:
    draw = random.Random(seed)
    if kind == "letters":
        return ["".join(draw.choices(LETTERS, k=draw.randint(1, 12))) for _ in range(count)]
    gaps = ["", " ", " ", " "] if kind == "glued" else [" "]
    return ["".join(w + draw.choice(gaps) for w in draw.choices(PIECES, k=draw.randint(1, 12))) for _ in range(count)]


@pytest.mark.java
@pytest.mark.parametrize("kind", ["spaced", "glued", "letters"])
def test_equals_the_official_tokenizer(kind: str) -> None:
    from tests.tasks.metrics.make_golden import official_words

    captions = _fuzz(kind, seed=7, count=4_000)
    wrong = {
        c: (ours, o) for c, o in zip(captions, official_words(captions), strict=True) if (ours := tokenize(c)) != o
    }
    assert not wrong


@pytest.mark.java
def test_golden_files_are_up_to_date() -> None:
    from tests.tasks.metrics.make_golden import captions, official_words

    texts = captions()
    assert [case["caption"] for case in GOLDEN] == texts
    assert [case["words"] for case in GOLDEN] == official_words(texts)
