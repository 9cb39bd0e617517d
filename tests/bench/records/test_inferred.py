"""Which scores follow from a larger radius, by hand."""

from dataclasses import replace

import pytest

from bench.records.inferred import inferred, is_unchanged, settling_radius
from bench.records.worst import unscored, worst_scores
from tests.bench.runs import make_header, make_record

DESCENDING = make_header(radii=(1.0, 2.0, 4.0), protocol={"radii_order": "descending"})


def attacks(*found):
    """A clean record of score 90, then attacks as (radius, score, step)."""
    return [make_record(score=90.0)] + [
        make_record(step=step, radius=radius, score=score) for radius, score, step in found
    ]


@pytest.mark.parametrize(
    ("records", "settled"),
    [
        (attacks((4.0, 90.0, "one"), (4.0, 90.0, "two")), 4.0),
        (attacks((4.0, 90.0, "one"), (4.0, 30.0, "two")), None),  # lowered, though perhaps not broken
        (attacks((4.0, 100.0, "one")), None),  # something changed, if for the better
        (attacks((4.0, 0.0, "one")), None),
        (attacks((4.0, 30.0, "one"), (2.0, 90.0, "one")), 2.0),  # the nearest larger ball holds it, too
        (attacks((4.0, 90.0, "one"), (1.0, 90.0, "one")), None),  # it was attacked itself
        (attacks(), None),
        (attacks((0.5, 90.0, "one")), None),  # a smaller ball says nothing of a larger one
        (attacks((4.0, 90.0, "one"))[1:], None),  # no clean score
    ],
)
def test_a_score_follows_from_a_larger_radius_that_changed_nothing(records, settled):
    assert settling_radius(records, 1.0) == settled
    assert inferred(DESCENDING, records, 1.0) == ({} if settled is None else {"s0": settled})


def test_neither_an_error_nor_a_mean_over_draws_says_that_nothing_changed():
    same = make_record(step="one", radius=4.0, score=90.0)
    failed = make_record(step="two", radius=4.0, score=90.0, error="as an 8-bit PNG, the answer is not finite")
    drawn = make_record(step="two", radius=4.0, score=90.0, draws=(80.0, 100.0), screen=90.0)
    clean = make_record(score=90.0)
    assert is_unchanged([clean, same], 4.0)
    assert not is_unchanged([clean, same, failed], 4.0)
    assert is_unchanged([clean, same, failed, make_record(step="two", radius=4.0, score=90.0)], 4.0), "taken again"
    assert not is_unchanged([clean, same, drawn], 4.0)


def test_nothing_is_inferred_where_the_smallest_radius_came_first_nor_of_the_clean_score():
    records = attacks((4.0, 90.0, "one"))
    assert inferred(replace(DESCENDING, protocol={}), records, 1.0) == {}
    assert inferred(DESCENDING, records, 0.0) == {}


def test_an_inferred_score_is_the_clean_one_which_is_that_of_the_larger_radius():
    records = attacks((4.0, 90.0, "one"))
    for radius in DESCENDING.radii:
        assert worst_scores(DESCENDING, records, radius) == {"s0": 90.0}
        assert unscored(DESCENDING, records, radius) == {}
