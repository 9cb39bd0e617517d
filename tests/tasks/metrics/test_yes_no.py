"""Reading yes and no, and POPE's counts against sums worked out by hand."""

import pytest

from tasks.metrics.yes_no import anything_but_no, first_word, yes_no_counts


@pytest.mark.parametrize(
    ("answer", "strict", "published"),
    [
        ("Yes", "yes", "yes"),
        ("no", "no", "no"),
        ("No, there is none.", "no", "no"),
        ("NO", "no", "yes"),  # the published rule knows three spellings only
        ("", None, "yes"),
        ("  \n", None, "yes"),
        ("There is not.", None, "no"),
        ("A cat. No dog.", None, "yes"),  # after the first period nothing counts
        ("yes,no", "yes", "yes"),  # commas are deleted, not replaced by spaces
        ("nothing", None, "yes"),
        ("There is\nno dog", None, "yes"),  # words are what stands between spaces
        ("¿?", None, "yes"),
    ],
)
def test_the_two_rules(answer, strict, published):
    assert first_word(answer) == strict
    assert anything_but_no(answer) == published


def test_counts_of_a_worked_example():
    said = ["yes"] * 6 + ["no"] * 3 + [None]
    wanted = ["yes"] * 4 + ["no"] * 2 + ["no", "yes", "no", "yes"]
    counts = yes_no_counts(said, wanted)
    assert counts.accuracy == pytest.approx(60.0)  # 4 yes + 2 no of 10
    assert counts.precision == pytest.approx(100 * 4 / 6)
    assert counts.recall == pytest.approx(100 * 4 / 6)
    assert counts.f1 == pytest.approx(100 * 2 * 4 / (6 + 6))
    assert counts.yes_rate == pytest.approx(60.0)
    assert counts.unreadable == pytest.approx(10.0)


def test_each_count_is_divided_by_its_own_whole():
    """Four times "yes", of which one is right; two questions want "yes", of which one is found."""
    said = ["yes", "yes", "yes", "yes", "no", "no", "no", None]
    wanted = ["yes", "no", "no", "no", "yes", "no", "no", "no"]
    counts = yes_no_counts(said, wanted)
    assert counts == pytest.approx((37.5, 25.0, 50.0, 100 * 2 / 6, 50.0, 12.5))


def test_where_nothing_can_be_divided_there_is_no_number():
    never = yes_no_counts(["no", "no"], ["no", "no"])
    assert (never.precision, never.recall, never.f1) == (None, None, None)
    missed = yes_no_counts(["no", "no"], ["yes", "no"])
    assert (missed.precision, missed.recall, missed.f1) == (None, 0.0, 0.0)


@pytest.mark.parametrize(("said", "wanted"), [([], []), (["yes"], []), (["yes"], ["yes", "no"])])
def test_answers_and_questions_must_be_as_many(said, wanted):
    with pytest.raises(ValueError, match="answers to"):
        yes_no_counts(said, wanted)
