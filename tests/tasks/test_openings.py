"""Openings: no token rules out an answer that the official accuracy would count."""

import random

import pytest

from tasks.metrics import vqa_accuracy
from tasks.openings import Openings
from tasks.vqa import first_phrase

ANSWERS = [
    "yes", "No", "3", "none", "a red car", "10:30", "1,000", "don't", "p.m.", "T-shirt", "two dogs", "émeu", "写真",
    "$5", "the", "?", "o'clock", "3.5 p.m.", "San Francisco, CA", "zero", "(left)", "couldn't've", "ten", "& co",
]  # fmt: skip
WORDS = {"3": "three", "none": "0", "two dogs": "2 dogs", "zero": "none", "ten": "10"}


def _said(rng: random.Random, answer: str) -> str:
    """The answer as a model may put it."""
    text = rng.choice([answer, WORDS.get(answer, answer)])
    text = rng.choice([str.lower, str.upper, str.capitalize, str])(text)
    text = rng.choice(["", "", "The ", "a ", "an the ", "(", '"', "- ", "\n"]) + text
    text += rng.choice(["", "", ".", "!", ")", ", Question: what", " a", " Short", "\t"])
    return text.replace("'", "") if rng.random() < 0.2 else text


@pytest.mark.parametrize("seed", range(5))
def test_what_can_agree_is_never_ruled_out(seed):
    rng, counted = random.Random(seed), 0
    for _ in range(2000):
        references = rng.choices(ANSWERS, k=3)
        said = _said(rng, rng.choice(references))
        if vqa_accuracy(first_phrase(said), [*references, *references], most_periods=None) == 0:
            continue
        counted += 1
        beginnings = [said[:end] for end in range(1, len(said) + 1)]
        allowed = Openings(beginnings).of(references)
        assert allowed.all(), (references, said, [b for b, ok in zip(beginnings, allowed, strict=True) if not ok])
    assert counted > 1000


def test_what_cannot_agree_is_ruled_out():
    texts = ["Yes", "ye", "yesterday", "no", "The", "theatre", "blue", "12", "1", None, "", "▁", "\ufffd", "two", "x y"]
    allowed = Openings(texts).of(["yes", "1"])
    assert [t for t, ok in zip(texts, allowed.tolist(), strict=True) if ok] == [
        "Yes", "ye", "The", "1", "", "▁", "\ufffd", "x y",
    ]  # fmt: skip
    assert Openings(["one", "On", "two", "1"]).of(["1"]).tolist() == [True, True, False, True]


def test_an_annotator_who_said_nothing_rules_nothing_out():
    assert Openings(["red", None]).of(["red", "?"]).tolist() == [True, True]
    assert Openings(["red", None]).of(["red"]).tolist() == [True, False]
