from itertools import product
from math import comb

import numpy as np
import pytest

from bench.analysis import stats
from bench.analysis.stats import average_interval, holm, interval, mcnemar, paired, sign_flip, wilson


def numbered(values, per_group=1):
    """Scores and groups of samples s0, s1, ...; `per_group` neighbours share a group."""
    scores = {f"s{i}": float(value) for i, value in enumerate(values)}
    return scores, {f"s{i}": f"g{i // per_group}" for i in range(len(scores))}


def rates(function, repetitions):
    return np.mean([function(seed) for seed in range(repetitions)])


# ---- intervals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (8, 10, 0.4901625, 0.9433178),  # R: binom::binom.confint(8, 10, methods = "wilson")
        (0, 200, 0.0, 1.9599640**2 / (200 + 1.9599640**2)),
        (200, 200, 200 / (200 + 1.9599640**2), 1.0),
        (1, 1, 0.2065493, 1.0),
    ],
)
def test_wilson_agrees_with_known_values(successes, n, low, high):
    assert wilson(successes, n) == pytest.approx((low, high), abs=1e-6)


@pytest.mark.parametrize("n", [20, 100, 500])
def test_wilson_covers_the_truth_by_exact_enumeration(n):
    """Coverage at a proportion is a sum of binomial probabilities: nothing is drawn."""
    coverage = []
    for p in np.linspace(0.05, 0.95, 91):
        chances = [comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
        coverage.append(sum(c for k, c in enumerate(chances) if wilson(k, n)[0] <= p <= wilson(k, n)[1]))
    assert 0.945 <= np.mean(coverage) <= 0.96
    assert min(coverage) > 0.90


def test_interval_of_right_or_wrong_is_wilsons():
    scores, groups = numbered([100] * 8 + [0] * 2)
    estimate = interval(scores, groups)
    assert (estimate.value, estimate.n) == (80.0, 10)
    assert (estimate.low, estimate.high) == pytest.approx((49.01625, 94.33178), abs=1e-4)


def test_repeated_groups_widen_the_interval_of_right_or_wrong():
    values = np.repeat(np.random.default_rng(0).integers(2, size=50) * 100, 4)
    alone, together = interval(*numbered(values)), interval(*numbered(values, per_group=4))
    ratio = (together.high - together.low) / (alone.high - alone.low)
    assert 1.7 < ratio < 2.3  # four copies carry the information of one: twice the width
    assert together.n == 200


@pytest.mark.parametrize(("value", "per_group", "trials"), [(0, 1, 200), (0, 2, 100), (100, 4, 50), (30, 1, 200)])
def test_all_alike_is_not_certain(value, per_group, trials):
    estimate = interval(*numbered([value] * 200, per_group))
    low, high = wilson(trials * value / 100, trials)
    assert (estimate.low, estimate.value, estimate.high) == pytest.approx((100 * low, value, 100 * high))
    assert estimate.high - estimate.low > 1
    assert estimate.n == 200


def test_one_group_is_not_certain_either():
    estimate = interval(*numbered([0, 100, 100, 100], per_group=4))
    assert estimate.high - estimate.low > 50


def test_bootstrap_covers_the_truth_about_95_times_in_100():
    def covered(seed):
        rng = np.random.default_rng(seed)
        effect = rng.normal(0, 10, size=60)  # of an image, shared by its three questions
        values = 50 + np.repeat(effect, 3) + rng.normal(0, 10, size=180)
        estimate = interval(*numbered(values, per_group=3), seed=seed)
        return estimate.low <= 50 <= estimate.high

    assert 0.90 <= rates(covered, 300) <= 0.98


def test_bootstrap_covers_the_truth_of_skewed_unbounded_scores():
    """CIDEr: one image, one score; many near zero and a long tail."""

    def covered(seed):
        scores, groups = numbered(np.random.default_rng(seed).exponential(80, size=150))
        estimate = interval(scores, groups, seed=seed, ceiling=None)
        return estimate.low <= 80 <= estimate.high

    assert 0.90 <= rates(covered, 200) <= 0.98


def test_a_run_too_large_to_keep_its_draws_has_the_same_interval(monkeypatch):
    scores, groups = numbered(np.random.default_rng(1).normal(50, 20, size=120), per_group=2)
    kept = interval(scores, groups)
    monkeypatch.setattr(stats, "KEPT", 0)
    monkeypatch.setattr(stats, "BLOCK", 7_000)
    assert interval(scores, groups) == kept


def test_the_bootstrap_is_the_textbook_one():
    """Draw groups with replacement, pool their samples, take the mean; the ends are percentiles."""
    rng = np.random.default_rng(3)
    sizes = rng.integers(1, 5, size=40)
    members = [rng.normal(50, 20, size=size) for size in sizes]
    names = [f"g{g}" for g, size in enumerate(sizes) for _ in range(size)]
    scores = {f"s{i}": float(v) for i, v in enumerate(np.concatenate(members))}
    estimate = interval(scores, dict(zip(scores, names, strict=True)), ceiling=None)
    means = [np.mean(np.concatenate([members[g] for g in rng.integers(40, size=40)])) for _ in range(20_000)]
    assert (estimate.low, estimate.high) == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.6)
    wanted = np.std(means)
    assert (estimate.high - estimate.low) / 3.92 == pytest.approx(wanted, rel=0.08)


def test_intervals_are_repeatable_and_do_not_depend_on_order():
    scores, groups = numbered(np.random.default_rng(1).normal(50, 20, size=40))
    backwards = dict(reversed(scores.items()))
    assert interval(scores, groups, seed=3) == interval(backwards, groups, seed=3)
    assert interval(scores, groups, seed=3) != interval(scores, groups, seed=4)


def test_nothing_measured_raises():
    with pytest.raises(ValueError, match="nothing was measured"):
        interval({}, {})
    with pytest.raises(ValueError, match="nothing was measured"):
        average_interval([])
    with pytest.raises(ValueError, match="nothing was measured"):
        average_interval([numbered([1.0]), ({}, {})])
    with pytest.raises(ValueError, match="share no sample"):
        paired({"a": 1.0}, {"b": 1.0}, {"a": "a", "b": "b"})
    with pytest.raises(ValueError, match="no samples"):
        wilson(0, 0)


def test_average_is_the_plain_mean_of_datasets_whatever_their_sizes():
    small, large = numbered([100, 0]), numbered([0] * 95 + [100] * 5)
    estimate = average_interval([small, large])
    assert estimate.value == pytest.approx((50 + 5) / 2)
    assert estimate.n == 102


def test_average_has_the_standard_error_of_independent_datasets():
    rng = np.random.default_rng(0)
    strata = [numbered(rng.normal(50, 20, size=size)) for size in (50, 200)]
    estimate = average_interval(strata)
    variances = [np.var(list(scores.values())) / len(scores) for scores, _ in strata]
    wanted = 2 * 1.96 * np.sqrt(sum(variances)) / 2
    assert estimate.high - estimate.low == pytest.approx(wanted, rel=0.1)
    flat = average_interval([numbered([0] * 50), numbered([0] * 150)])
    assert flat.high == pytest.approx(100 * wilson(0, 200)[1])


def test_without_a_ceiling_an_interval_may_pass_100():
    estimate = interval(*numbered([0, 0, 150]), ceiling=None)
    assert estimate.high > 100


# ---- paired comparisons ----------------------------------------------------------------------------------


def binary_pair(gains, losses, ties=20):
    a, groups = numbered([100] * gains + [0] * losses + [100] * ties)
    b, _ = numbered([0] * gains + [100] * losses + [100] * ties)
    return a, b, groups


def test_mcnemar_agrees_with_its_closed_form():
    assert mcnemar(2, 10) == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    assert mcnemar(2, 10, "less") == pytest.approx((1 + 12 + 66) / 2**12)
    assert mcnemar(2, 10, "greater") == pytest.approx(1 - (1 + 12) / 2**12)
    assert mcnemar(10, 2, "greater") == mcnemar(2, 10, "less")
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(0, 0) == mcnemar(0, 0, "less") == 1.0
    assert mcnemar(0, 3000, "less") == pytest.approx(0.0, abs=1e-300)
    assert mcnemar(1500, 1500, "less") == pytest.approx(0.5 + comb(3000, 1500) / 2**3001)


def test_paired_binary_scores_use_mcnemar_and_name_the_flipped():
    result = paired(*binary_pair(2, 10))
    assert result.p == mcnemar(2, 10)
    assert result.difference == pytest.approx(-100 * 8 / 32)
    assert result.low < result.difference < result.high < 0
    assert result.n == 32
    assert set(result.flipped) == {f"s{i}" for i in range(12)}


def test_paired_is_on_the_shared_samples():
    a, b, groups = binary_pair(2, 10)
    del a["s0"], b["s31"]
    assert paired(a, b, groups).n == 30


@pytest.mark.parametrize("gains", [0, 20])
def test_when_none_or_all_flip_the_interval_has_a_width(gains):
    result = paired(*binary_pair(gains, 0, ties=20 - gains))
    width = 100 * wilson(0, 20)[1]
    assert result.low == pytest.approx(5 * gains - width)
    assert result.high == pytest.approx(min(100, 5 * gains + width))


def test_no_change_of_graded_scores_is_not_certainty_either():
    scores, groups = numbered([30.0, 60.0, 90.0, 100.0] * 10, per_group=2)
    result = paired(scores, scores, groups, ceiling=100.0)
    assert (result.low, result.high) == pytest.approx((-100 * wilson(0, 20)[1], 100 * wilson(0, 20)[1]))
    assert paired(scores, scores, groups).high == 0.0  # without a bound there is no telling


@pytest.mark.parametrize("alternative", ["two-sided", "less", "greater"])
def test_sign_flips_agree_with_all_of_them(alternative):
    differences = [3.0, -1.0, -4.0, -2.5, -6.0, 0.0, 0.5, -5.0]
    totals = np.array([np.dot(signs, differences) for signs in product([-1, 1], repeat=len(differences))])
    observed = sum(differences)
    extreme = {
        "two-sided": abs(totals) >= abs(observed),
        "less": totals <= observed,
        "greater": totals >= observed,
    }[alternative]
    a, groups = numbered(differences)
    result = paired(a, dict.fromkeys(a, 0.0), groups, alternative=alternative)
    assert result.p == pytest.approx(extreme.mean(), rel=1e-12)
    assert result.difference == pytest.approx(observed / len(differences))


def test_shared_groups_are_flipped_together():
    """Five groups of eight equal losses: five coins, not forty."""
    a, groups = numbered([0] * 40, per_group=8)
    b, _ = numbered([100] * 40, per_group=8)
    assert paired(a, b, groups).p == pytest.approx(2 / 2**5, rel=1e-12)


def test_the_smallest_p_survives_many_comparisons():
    a, groups = numbered(np.arange(1.0, 201.0))
    p = paired(a, dict.fromkeys(a, 0.0), groups, alternative="greater").p
    assert p * 1000 < 0.01


@pytest.mark.parametrize("alternative", ["two-sided", "less", "greater"])
@pytest.mark.parametrize(("gains", "losses"), [(3, 17), (0, 40), (250, 190), (1, 1)])
def test_equal_differences_are_mcnemars_coins(gains, losses, alternative):
    differences = np.array([100.0] * gains + [-100.0] * losses + [0.0] * 5)
    assert sign_flip(differences, alternative) == pytest.approx(mcnemar(gains, losses, alternative), rel=1e-9)


def test_sign_flips_agree_with_drawing_them():
    rng = np.random.default_rng(0)
    differences = rng.normal(0.15, 1.0, size=300) * rng.choice([0.001, 1.0, 37.0], size=300)
    draws = rng.choice([-1.0, 1.0], size=(40_000, 300)) @ differences
    for alternative, extreme in (("less", draws <= differences.sum()), ("greater", draws >= differences.sum())):
        assert sign_flip(differences, alternative) == pytest.approx(extreme.mean(), abs=0.01)  # 4 standard errors


def test_many_groups_are_no_burden():
    differences = np.random.default_rng(0).normal(1, 3, size=5_000)
    assert sign_flip(differences, "greater") < 1e-50  # far below what drawing could resolve
    assert sign_flip(differences, "less") == pytest.approx(1.0)


def test_p_values_are_uniform_when_nothing_differs():
    def rejected(seed):
        rng = np.random.default_rng(seed)
        a, groups = numbered(rng.normal(size=40), per_group=2)
        b, _ = numbered(rng.normal(size=40), per_group=2)
        return paired(a, b, groups, seed).p < 0.1

    assert 0.05 <= rates(rejected, 300) <= 0.15


def test_no_difference_has_p_one():
    scores, groups = numbered([10.0, 20.0, 30.0])
    result = paired(scores, scores, groups)
    assert (result.difference, result.p, result.flipped) == (0.0, 1.0, ())


def test_holm_agrees_with_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([1e-9, 0.5]) == pytest.approx([2e-9, 0.5], rel=1e-9)
    assert holm([]) == []
