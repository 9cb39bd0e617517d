"""Which option an answer names, by either rule."""

import pytest

from tasks.metrics.letters import published_letter, stated_letter

CHOICES = ["red", "dark blue", "green."]


@pytest.mark.parametrize(
    ("answer", "stated", "published"),
    [
        ("A", 0, 0),
        ("B. dark blue", 1, 1),
        ("(B)", 1, None),
        ("B) dark blue", 1, None),
        ("B", 1, 1),
        ("B.", 1, None),
        ("C", 2, 2),
        ("D", None, None),  # beyond the options
        ("E. none", None, None),
        ("a", None, None),
        ("The answer is C.", 2, 2),
        ("the answer is (C)", 2, None),
        ("The answer is A. The answer is B.", None, None),
        ("The answer is A. The answer is A.", 0, None),
        ("the answer is b", 1, None),
        ("The answer is Z.", None, None),
        (" B", 1, None),
        (" Dark blue. ", 1, None),
        ("Dark blue", 1, None),
        ("green", 2, None),
        ("A red circle", None, None),  # an article, not a letter
        ("Blue", None, None),
        ("", None, None),
        ("ABC", None, None),
    ],
)
def test_the_two_rules(answer, stated, published):
    assert stated_letter(answer, CHOICES) == stated
    assert published_letter(answer, CHOICES) == published


def test_two_options_of_one_text_are_not_told_apart_by_it():
    assert stated_letter("red", ["red", "red"]) is None
    assert stated_letter("B", ["red", "red"]) == 1


def test_capitals_and_margins_of_an_option_do_not_matter():
    assert stated_letter("green", ["red", " GREEN. "]) == 1
    assert stated_letter("Red", [" green", " Red "]) == 1
