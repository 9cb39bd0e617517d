"""What a sample is left with at a radius: against hand-made cases and an independent, slow way to say it."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.records import CLEAN
from bench.records.worst import (
    WorstSoFar,
    groups_of,
    kept_records,
    last_records,
    unscored,
    worst_attacks,
    worst_records,
    worst_scores,
)
from tests.bench.runs import make_header, make_record

RECORDS = [
    make_record("stood", "clean", 0.0, 90.0),
    make_record("stood", "apgd", 2.0, 80.0),
    make_record("stood", "apgd", 4.0, 85.0),  # the point found at 2/255 is in this ball too
    make_record("stood", "apgd", 8.0, 10.0),
    make_record("fell clean", "clean", 0.0, 0.0),
    make_record("fell at 2", "clean", 0.0, 100.0),
    make_record("fell at 2", "apgd", 2.0, 0.0),
    make_record("two steps", "clean", 0.0, 50.0),
    make_record("two steps", "a", 4.0, 70.0),
    make_record("two steps", "b", 4.0, 60.0),
    make_record("no clean", "apgd", 4.0, 0.0),
    make_record("clean error", "clean", 0.0, None, error="out of memory"),
    make_record("attack error", "clean", 0.0, 100.0),
    make_record("attack error", "apgd", 4.0, None, error="NaN"),
    make_record("one step failed", "clean", 0.0, 100.0),
    make_record("one step failed", "a", 4.0, 40.0),
    make_record("one step failed", "b", 4.0, 0.0, error="NaN"),
]
HEADER = make_header(radii=(2.0, 4.0, 8.0))


def test_worst_scores_take_the_minimum_over_every_smaller_ball():
    wanted = {"stood": 80.0, "fell clean": 0.0, "fell at 2": 0.0, "two steps": 50.0, "one step failed": 40.0}
    assert worst_scores(HEADER, RECORDS, 4.0) == wanted


def test_worst_scores_take_the_maximum_of_an_attack_success():
    scores = worst_scores(make_header(worst="max", radii=(2.0, 4.0, 8.0)), RECORDS, 4.0)
    assert scores["stood"] == 90.0
    assert scores["two steps"] == 70.0


def test_the_last_attack_counts_even_where_it_did_no_harm():
    """The largest radius that counts, of equal ones the later record; never an error."""

    def last(radius, **protocol):
        records = last_records(make_header(radii=(2.0, 4.0, 8.0), protocol=protocol), RECORDS, radius)
        return {sample: (r.step, r.radius) for sample, r in records.items()}

    assert last(4.0) == {
        "stood": ("apgd", 4.0),
        "fell clean": ("clean", 0.0),
        "fell at 2": ("apgd", 2.0),
        "two steps": ("b", 4.0),
        "no clean": ("apgd", 4.0),
        "attack error": ("clean", 0.0),
        "one step failed": ("a", 4.0),
    }
    assert last(4.0, cumulative_radii=False)["fell at 2"] == ("clean", 0.0)
    assert set(last(0).values()) == {("clean", 0.0)}
    with pytest.raises(ValueError, match="no radius"):
        last(3.0)


def test_radius_zero_is_clean():
    scores = worst_scores(HEADER, [*RECORDS, make_record("stood", "apgd", 0.0, 1.0)], 0)
    assert scores["stood"] == 90.0
    assert scores["attack error"] == 100.0
    assert scores.keys() == {r.sample_id for r in RECORDS} - {"no clean", "clean error"}


def test_the_unscored_are_named_with_their_reason():
    assert unscored(HEADER, RECORDS, 4.0) == {
        "no clean": "no clean score",
        "clean error": "no clean score",
        "attack error": "attack failed: NaN",
    }
    assert unscored(HEADER, RECORDS, 2.0).keys() == {"no clean", "clean error"}


def test_a_radius_that_was_not_run_is_refused():
    with pytest.raises(ValueError, match=r"no radius 3.*it has 2\.0, 4\.0, 8\.0"):
        worst_scores(HEADER, RECORDS, 3.0)


def test_worst_scores_never_rise_with_the_radius():
    rng = np.random.default_rng(0)
    records = [make_record(f"s{i}", "clean", 0.0, float(rng.integers(101))) for i in range(30)]
    records += [make_record(f"s{i}", "a", e, float(rng.integers(101))) for i in range(30) for e in (2.0, 4.0, 8.0)]
    columns = [worst_scores(HEADER, records, eps) for eps in (0.0, 2.0, 4.0, 8.0)]
    for smaller, larger in pairwise(columns):
        assert all(larger[s] <= smaller[s] for s in smaller)


def test_a_sample_has_one_group():
    assert groups_of(RECORDS[:2]) == {"stood": "image of stood"}
    with pytest.raises(ValueError, match="two groups"):
        groups_of([make_record(group="a"), make_record(group="b")])


# ---- against an independent way to say it ----------------------------------------------------------------

RADII = (2.0, 4.0, 8.0)


@st.composite
def recorded(draw):
    """A clean record of each of two samples, and attacks in any order, with ties and errors."""
    attacks = draw(
        st.lists(
            st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(RADII), st.sampled_from([0.0, 50.0, 100.0, None])),
            max_size=12,
        )
    )
    records = [make_record(sample, CLEAN, 0.0, draw(st.sampled_from([0.0, 50.0, 100.0]))) for sample in "ab"]
    for number, (sample, radius, score) in enumerate(attacks):
        error = "NaN" if score is None else None
        records.append(make_record(sample, f"step {number}", radius, score, error=error))
    return records


@pytest.mark.parametrize("cumulative", [True, False])
@pytest.mark.parametrize(("worst", "sign"), [("min", 1), ("max", -1)])
@given(recorded())
def test_every_query_agrees_with_the_plain_definition(worst, sign, cumulative, records):
    header = make_header(worst=worst, radii=RADII, protocol={"cumulative_radii": cumulative})

    def counts(record, radius):
        return record.radius <= radius if cumulative else record.radius in (0, radius)

    for radius in (0.0, *RADII):
        wanted = {}
        for sample in "ab":
            mine = [r for r in records if r.sample_id == sample and counts(r, radius)]
            here = [r for r in mine if r.radius == radius and radius]
            if not (here and all(r.error for r in here)):
                left = sorted((sign * r.score, k) for k, r in enumerate(mine) if r.error is None)
                wanted[sample] = mine[left[0][1]]
        assert worst_records(header, records, radius) == wanted
        assert worst_scores(header, records, radius) == {sample: r.score for sample, r in wanted.items()}
    kept = {}
    for number, record in enumerate(records):
        before = [r for r in records[:number] if r.sample_id == record.sample_id and counts(r, record.radius)]
        attack = record.step != CLEAN and record.error is None
        if attack and all(sign * record.score < sign * r.score for r in before if r.error is None):
            kept[record.sample_id, record.radius] = record
    assert kept_records(header, records) == kept
    attacks = {}
    for record in records:
        if record.step != CLEAN:
            attacks.setdefault((record.sample_id, record.radius), []).append(record)
    rank = {key: min(found, key=lambda r: (r.score is None, sign * (r.score or 0))) for key, found in attacks.items()}
    assert worst_attacks(header, records) == rank


def test_what_comes_in_one_by_one_is_what_it_is_altogether():
    so_far = WorstSoFar("min")
    assert so_far.at("s0", 4.0) is None
    assert so_far.add(make_record("s0", CLEAN, 0.0, 100.0))
    assert not so_far.add(make_record("s0", "a", 4.0, 100.0))  # no worse
    assert so_far.add(make_record("s0", "b", 4.0, 50.0))
    assert so_far.add(make_record("s0", "c", 2.0, 60.0))  # worse in the smaller ball only
    assert not so_far.add(make_record("s0", "d", 4.0, None, error="NaN"))
    assert not so_far.add(make_record("s0", "e", 0.0, 0.0))  # an attack that may not move the image
    assert [so_far.at("s0", radius).step for radius in (0.0, 2.0, 3.0, 4.0, 8.0)] == [CLEAN, "c", "c", "b", "b"]


def test_a_sample_without_a_clean_score_keeps_no_image():
    error = make_record("s0", CLEAN, 0.0, None, error="NaN")
    assert kept_records(make_header(), [error, make_record("s0", "a", 2.0, 0.0)]) == {}


@pytest.mark.parametrize(("worst", "better", "bad", "worse"), [("min", 100.0, 50.0, 0.0), ("max", 0.0, 50.0, 100.0)])
def test_the_kept_image_is_the_last_that_made_things_worse(worst, better, bad, worse):
    def of(*steps):
        records = [make_record("s0", step, eps, score) for step, eps, score in steps]
        return {key: record.step for key, record in kept_records(make_header(worst=worst), records).items()}

    clean = ("clean", 0.0, better)
    assert of(clean, ("a", 2.0, better)) == {}
    assert of(clean, ("a", 2.0, bad), ("b", 2.0, bad), ("c", 2.0, worse)) == {("s0", 2.0): "c"}
    assert of(clean, ("a", 2.0, bad), ("a", 4.0, bad)) == {("s0", 2.0): "a"}
    assert of(clean, ("a", 2.0, bad), ("a", 4.0, worse)) == {("s0", 2.0): "a", ("s0", 4.0): "a"}


def test_a_sample_whose_clean_answer_failed_is_left_with_nothing_whatever_attacks_did():
    lost = [
        make_record("lost", CLEAN, 0.0, None, error="out of memory"),
        make_record("lost", "a", 4.0, 50.0),
        make_record("lost", "b", 4.0, 0.0),
    ]
    sound = [make_record("sound", CLEAN, 0.0, 100.0), make_record("sound", "a", 4.0, 50.0)]
    header, records = make_header(radii=(4.0,)), [*lost, *sound]
    assert worst_scores(header, records, 4.0) == {"sound": 50.0}
    assert unscored(header, records, 4.0) == {"lost": "no clean score"}
    assert set(kept_records(header, records)) == {("sound", 4.0)}
