from pathlib import Path

import numpy as np
import pytest

from bench.errors import UsageError
from bench.records import Run
from bench.regression.compare import compare_to_baseline
from tests.bench.runs import in_memory, make_record


def outcomes(findings):
    return [finding.outcome for finding in findings]


HIGH, LOW = [100.0] * 80 + [0.0] * 20, [100.0] * 40 + [0.0] * 60


def test_the_same_run_passes():
    run = in_memory({0: HIGH, 4: LOW})
    findings = compare_to_baseline([run], [run])
    assert [finding.name for finding in findings] == [
        "fare4 / vqa / mini-vqa, clean",
        "fare4 / vqa / mini-vqa at 4/255",
    ]
    assert all(finding.ok for finding in findings)
    assert "stayed from 80.0 to 80.0" in findings[0].words


def test_a_real_drop_fails_in_words():
    findings = compare_to_baseline([in_memory({0: HIGH, 4: LOW})], [in_memory({0: HIGH, 4: HIGH})])
    assert outcomes(findings) == ["ok", "fell"]
    assert not findings[1].ok
    assert findings[1].words.startswith("fare4 / vqa / mini-vqa at 4/255 fell from 80.0 to 40.0 (-40.0 [-")
    assert findings[1].words.endswith("], p < 0.0001, n = 100)")


OTHER = {"encoder": "of a better model"}


def test_a_rise_passes_and_for_an_attack_success_it_is_the_other_way_round():
    low, high = {0: LOW}, {0: HIGH}
    assert outcomes(compare_to_baseline([in_memory(high, weights=OTHER)], [in_memory(low)])) == ["ok"]
    (finding,) = compare_to_baseline([in_memory(high, worst="max", weights=OTHER)], [in_memory(low, worst="max")])
    assert (finding.outcome, finding.ok) == ("fell", False)
    assert "rose from 40.0 to 80.0 (+40.0 [" in finding.words
    better = in_memory(low, worst="max", weights=OTHER)
    assert outcomes(compare_to_baseline([better], [in_memory(high, worst="max")])) == ["ok"]


def test_a_rise_with_the_same_weights_is_a_weaker_attack():
    (_, finding) = compare_to_baseline([in_memory({0: HIGH, 4: HIGH})], [in_memory({0: HIGH, 4: LOW})])
    assert (finding.outcome, finding.ok) == ("rose", False)
    assert finding.words.endswith("the attack is weaker or the scoring has changed")


def test_a_transfer_is_named_by_what_its_images_were_made_on():
    runs = [in_memory({0: HIGH, 4: HIGH}, attack=f"transfer-from-{name}") for name in ("clip", "clip+fare2")]
    names = [finding.name for finding in compare_to_baseline(runs, runs)]
    assert names[1] == "fare4 / vqa / mini-vqa, images made on clip at 4/255"
    assert names[3] == "fare4 / vqa / mini-vqa, images made on clip+fare2 at 4/255"


def test_runs_of_several_models_are_each_held_against_their_own():
    fell = [in_memory({0: LOW}, model="one"), in_memory({0: HIGH}, model="other")]
    before = [in_memory({0: HIGH}, model="one"), in_memory({0: HIGH}, model="other")]
    assert outcomes(compare_to_baseline(fell, before)) == ["fell", "ok"]
    assert outcomes(compare_to_baseline(fell[1:], before)) == ["missing", "ok"]
    assert outcomes(compare_to_baseline(fell, before[1:])) == ["ok", "missing"]


def test_defended_runs_are_each_held_against_their_own_defence():
    def behind(scores, defence):
        return in_memory({0: scores}, attack="adaptive-apgd", protocol={"precision": "float32", "defence": defence})

    before = [behind(HIGH, "ttc"), behind(HIGH, "jpeg")]
    findings = compare_to_baseline([behind(LOW, "ttc"), behind(HIGH, "jpeg")], before)
    assert outcomes(findings) == ["fell", "ok"]
    assert findings[0].name == "fare4 behind ttc / vqa / mini-vqa, clean"
    assert outcomes(compare_to_baseline([behind(HIGH, "jpeg?quality=50")], before[1:])) == ["missing", "missing"]


def test_p_values_are_corrected_for_the_number_of_comparisons():
    """Eight losses of eight flips: p = 0.0039 alone, 0.0156 among four comparisons."""
    before, after = [100.0] * 50, [0.0] * 8 + [100.0] * 42
    alone = compare_to_baseline([in_memory({0: after})], [in_memory({0: before})])
    assert outcomes(alone) == ["fell"]
    four = [
        [in_memory({0: s}, dataset=f"d{i}") for i, s in enumerate(c)] for c in ([after] + [before] * 3, [before] * 4)
    ]
    assert outcomes(compare_to_baseline(*four)) == ["ok"] * 4


@pytest.mark.parametrize(
    ("losses", "changes", "outcome"),
    [
        (6, OTHER, "ok"),  # one-sided: 2^-6 = 0.0156
        (7, OTHER, "fell"),  # 0.0078
        (7, None, "ok"),  # two-sided between runs of the same weights: 0.0156
        (8, None, "fell"),
    ],
)
def test_a_drop_fails_below_one_in_a_hundred(losses, changes, outcome):
    new = in_memory({0: [0.0] * losses + [100.0] * 42}, **{"weights": changes} if changes else {})
    old = in_memory({0: [100.0] * (losses + 42)})
    assert outcomes(compare_to_baseline([new], [old])) == [outcome]
    succeeds = in_memory({0: [100.0] * losses + [0.0] * 42}, worst="max", **{"weights": changes} if changes else {})
    fails = in_memory({0: [0.0] * (losses + 42)}, worst="max")
    assert outcomes(compare_to_baseline([succeeds], [fails])) == [outcome]


@pytest.mark.parametrize(("metric", "interval"), [("accuracy", "[-3.7, 3.7]"), ("CIDEr", "[0.0, 0.0]")])
def test_an_interval_is_bounded_by_the_metrics_own_ceiling(metric, interval):
    """Where nothing changes: of 100 samples at most 3.7 % more could have, by Wilson; CIDEr knows no such bound."""
    run = in_memory({0: [60.0] * 100}, metric=metric, ceiling=None if metric == "CIDEr" else 100.0)
    (finding,) = compare_to_baseline([run], [run])
    assert f"(+0.0 {interval}, p = 1.00, n = 100)" in finding.words


@pytest.mark.parametrize(
    ("new", "old", "outcome", "words"),
    [
        ([], [{}], "missing", "was not run"),
        ([{}], [], "missing", "no baseline run"),
        ([{}, {"dataset": "other"}], [{}], "missing", "other has no baseline"),
        ([{"attack": "apgd"}], [{}], "missing", "was not run"),
        ([{"status": "partial"}], [{}], "partial", "status partial"),
        ([{"limit": 100}], [{}], "partial", "--limit 100"),
        ([{}], [{"status": "started"}], "partial", "the baseline is partial"),
        ([{"task_version": 2}], [{}], "not comparable", "task_version was 1 in the baseline and is 2"),
        ([{"metric": "CIDEr"}], [{}], "not comparable", "metric"),
        ([{"worst": "max"}], [{}], "not comparable", "worst"),
        ([{"norm": "l2"}], [{}], "not comparable", "norm"),
        ([{"dataset_fingerprint": "x"}], [{}], "not comparable", "dataset_fingerprint"),
        ([{"model": "another"}], [{}], "not comparable", "model was 'mini-llava' in the baseline and is 'another'"),
        ([{"attack_steps": []}], [{}], "not comparable", "attack_steps was"),
        (
            [{"protocol": {"precision": "bf16", "name": "paper"}}],
            [{}],
            "not comparable",
            "protocol.name was 'strict' in the baseline and is 'paper', protocol.precision was 'float32' in the "
            "baseline and is 'bf16'; make a new baseline",
        ),
        ([{"protocol": {"precision": "float32", "tower": "native"}}], [{}], "not comparable", "protocol.tower"),
        (
            [{"protocol": {"precision": "float32", "radii_order": "adaptive"}}],
            [{}],
            "not comparable",
            "radii_order was 'ascending' in the baseline and is 'adaptive'; make a new baseline, or the runs "
            "with --radii-order ascending",
        ),
        ([{}], [{"n_samples": 101}], "missing", "100 of 100 samples scored, 100 of 101 in the baseline"),
        ([{"radii": (2.0,)}], [{}], "missing", "at 2/255: the baseline does not have this radius"),
        ([{}], [{"radii": (2.0,)}], "missing", "at 2/255: the run does not have this radius"),
    ],
)
def test_what_cannot_be_compared_fails(new, old, outcome, words):
    sides = [[in_memory({0: HIGH}, **changes) for changes in side] for side in (new, old)]
    bad = [finding for finding in compare_to_baseline(*sides) if not finding.ok]
    assert bad
    assert bad[0].outcome == outcome
    assert words in bad[0].words


def test_other_samples_fail():
    whole, short = in_memory({0: HIGH}), in_memory({0: HIGH[:99]})
    (lost,) = compare_to_baseline([short], [whole])
    assert (lost.outcome, lost.ok) == ("missing", False)
    assert "99 of 99 samples scored, 100 of 100 in the baseline, without s99" in lost.words
    (extra,) = compare_to_baseline([whole], [short], allow_limit=True)
    assert (extra.outcome, extra.ok) == ("missing", False)
    assert "unknown s99" in extra.words


def test_a_limited_run_is_compared_on_its_samples_if_that_is_allowed():
    baseline = in_memory({0: [0.0] * 50 + [100.0] * 50})
    limited = in_memory({0: [0.0] * 50}, limit=50, dataset_fingerprint="of fifty")
    (finding,) = compare_to_baseline([limited], [baseline], allow_limit=True)
    assert finding.ok
    assert finding.words.endswith("n = 50)")
    dropped = in_memory({0: [0.0] * 50 + [0.0] * 10}, limit=60)
    assert outcomes(compare_to_baseline([dropped], [baseline], allow_limit=True)) == ["fell"]
    partial_baseline = in_memory({0: HIGH}, limit=100)
    (refused,) = compare_to_baseline([limited], [partial_baseline], allow_limit=True)
    assert refused.outcome == "partial"


def test_an_unscored_sample_fails():
    baseline = in_memory({0: HIGH, 4: LOW})
    records = list(baseline.records)
    records[-1] = make_record("s99", "apgd", 4.0, None, group="g99", error="NaN")
    findings = compare_to_baseline([Run(Path("new"), baseline.header, records)], [baseline])
    assert outcomes(findings) == ["ok", "missing"]


def test_a_run_whose_attack_did_not_bite_fails_however_robust_it_looks():
    scores = {0: [100] * 20, 4: [0] * 20}
    doubt = {"name": "gradient", "ok": False, "detail": "of 20 samples, 20 have an all-zero gradient"}
    old, sound = in_memory(scores), in_memory(scores, checks=[doubt | {"ok": True}])
    new = in_memory({0: [100] * 20, 4: [100] * 20}, checks=[doubt])
    (finding,) = compare_to_baseline([new], [old])
    assert (finding.ok, finding.outcome) == (False, "not credible")
    assert "gradient" in finding.words
    assert all(finding.ok for finding in compare_to_baseline([sound], [old]))
    assert "not credible" not in {f.outcome for f in compare_to_baseline([new], [in_memory(scores, checks=[doubt])])}


def test_two_runs_in_one_place_are_refused():
    with pytest.raises(UsageError, match="two runs of fare4 / vqa / mini-vqa, choose one: a and b"):
        compare_to_baseline([in_memory({0: HIGH}, name="a"), in_memory({0: HIGH}, name="b")], [])


def right_or_wrong(rng, rates, flip):
    """Scores 0 or 100 of two runs of which each sample's outcome is a coin with its own bias.

    Without a drop (`flip` 0) both sides are noise about one truth; otherwise `flip` of the samples that
    were right are lost.
    """
    old = 100.0 * (rng.random(len(rates)) < rates)
    new = 100.0 * (rng.random(len(rates)) < rates)
    return old, np.where(rng.random(len(rates)) < flip, 0.0, new)


def graded(rng, rates, drop):
    """CIDEr-like scores of two runs, with five points of noise and a common part to each sample."""
    common = 100 * rates
    return common + rng.normal(0, 5, len(rates)), common + rng.normal(0, 5, len(rates)) - drop


def share_that_fails(draw, effect, repetitions, comparisons=4, n=80):
    failed = 0
    for seed in range(repetitions):
        rng = np.random.default_rng(seed)
        sides = ([], [])
        for i in range(comparisons):
            old, new = draw(rng, rng.beta(0.4, 0.4, size=n), effect if i == 0 else 0)
            sides[0].append(in_memory({0: new}, dataset=f"d{i}", metric="CIDEr", weights=OTHER))
            sides[1].append(in_memory({0: old}, dataset=f"d{i}", metric="CIDEr"))
        failed += any(not finding.ok for finding in compare_to_baseline(*sides, seed=seed))
    return failed / repetitions


@pytest.mark.parametrize("draw", [right_or_wrong, graded])
def test_noise_raises_a_false_alarm_about_once_in_a_hundred_gates(draw):
    assert share_that_fails(draw, 0, repetitions=100) <= 0.04  # P(> 4 of 100 at 1 %) is 0.3 %


@pytest.mark.parametrize(("draw", "effect"), [(right_or_wrong, 0.5), (graded, 4.0)])
def test_a_real_drop_is_found_nine_times_in_ten(draw, effect):
    """Four points of 80 graded pairs are 5.1 standard errors: found 99 times in 100 at p < 0.005."""
    assert share_that_fails(draw, effect, repetitions=20, comparisons=2) >= 0.9
