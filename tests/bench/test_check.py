from pathlib import Path

import numpy as np
import pytest

from bench.check import CLAIMS, Claim, Quantity, claims_markdown, compare_to_baseline, evaluate_claims
from bench.records import Run
from tests.bench.runs import make_header, make_record


def in_memory(scores, groups=None, name="run", **header) -> Run:
    """A whole run; `scores` maps each radius to the scores of s0, s1, ..."""
    n = len(scores[0])
    fields = {"status": "complete", "n_samples": n, "eps_255": tuple(float(eps) for eps in scores if eps)}
    records = [
        make_record(
            f"s{i}",
            "apgd" if eps else "clean",
            float(eps),
            float(score),
            group=groups[i] if groups else f"g{i}",
        )
        for eps, column in scores.items()
        for i, score in enumerate(column)
    ]
    return Run(Path(name), make_header(**fields | header), records)


def verdicts(findings):
    return [finding.verdict for finding in findings]


# ---- the gate --------------------------------------------------------------------------------------------

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
    assert verdicts(findings) == ["ok", "fell"]
    assert not findings[1].ok
    assert findings[1].words.startswith("fare4 / vqa / mini-vqa at 4/255 fell from 80.0 to 40.0 (-40.0 [-")
    assert findings[1].words.endswith("], p < 0.0001, n = 100)")


OTHER = {"encoder": "of a better model"}


def test_a_rise_passes_and_for_an_attack_success_it_is_the_other_way_round():
    low, high = {0: LOW}, {0: HIGH}
    assert verdicts(compare_to_baseline([in_memory(high, weights=OTHER)], [in_memory(low)])) == ["ok"]
    (finding,) = compare_to_baseline([in_memory(high, worst="max", weights=OTHER)], [in_memory(low, worst="max")])
    assert (finding.verdict, finding.ok) == ("fell", False)
    assert "rose from 40.0 to 80.0 (+40.0 [" in finding.words
    better = in_memory(low, worst="max", weights=OTHER)
    assert verdicts(compare_to_baseline([better], [in_memory(high, worst="max")])) == ["ok"]


def test_a_rise_with_the_same_weights_is_a_weaker_attack():
    (_, finding) = compare_to_baseline([in_memory({0: HIGH, 4: HIGH})], [in_memory({0: HIGH, 4: LOW})])
    assert (finding.verdict, finding.ok) == ("rose", False)
    assert finding.words.endswith("the attack is weaker or the scoring has changed")


def test_p_values_are_corrected_for_the_number_of_comparisons():
    """Eight losses of eight flips: p = 0.0039 alone, 0.0156 among four comparisons."""
    before, after = [100.0] * 50, [0.0] * 8 + [100.0] * 42
    alone = compare_to_baseline([in_memory({0: after})], [in_memory({0: before})])
    assert verdicts(alone) == ["fell"]
    four = [
        [in_memory({0: s}, dataset=f"d{i}") for i, s in enumerate(c)] for c in ([after] + [before] * 3, [before] * 4)
    ]
    assert verdicts(compare_to_baseline(*four)) == ["ok"] * 4


@pytest.mark.parametrize(
    ("new", "old", "verdict", "words"),
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
        ([{}], [{"n_samples": 101}], "missing", "100 of 101 in the baseline"),
        ([{"eps_255": (2.0,)}], [{}], "missing", "at 2/255: the baseline does not have this radius"),
        ([{}], [{"eps_255": (2.0,)}], "missing", "at 2/255: the run does not have this radius"),
    ],
)
def test_what_cannot_be_compared_fails(new, old, verdict, words):
    sides = [[in_memory({0: HIGH}, **changes) for changes in side] for side in (new, old)]
    bad = [finding for finding in compare_to_baseline(*sides) if not finding.ok]
    assert bad
    assert bad[0].verdict == verdict
    assert words in bad[0].words


def test_other_samples_fail():
    whole, short = in_memory({0: HIGH}), in_memory({0: HIGH[:99]})
    (lost,) = compare_to_baseline([short], [whole])
    assert (lost.verdict, lost.ok) == ("missing", False)
    assert "99 samples scored, 100 of 100 in the baseline, without s99" in lost.words
    (extra,) = compare_to_baseline([whole], [short], allow_partial=True)
    assert (extra.verdict, extra.ok) == ("missing", False)
    assert "unknown s99" in extra.words


def test_a_limited_run_is_compared_on_its_samples_if_that_is_allowed():
    baseline = in_memory({0: [0.0] * 50 + [100.0] * 50})
    limited = in_memory({0: [0.0] * 50}, limit=50, dataset_fingerprint="of fifty")
    (finding,) = compare_to_baseline([limited], [baseline], allow_partial=True)
    assert finding.ok
    assert finding.words.endswith("n = 50)")
    dropped = in_memory({0: [0.0] * 50 + [0.0] * 10}, limit=60)
    assert verdicts(compare_to_baseline([dropped], [baseline], allow_partial=True)) == ["fell"]
    partial_baseline = in_memory({0: HIGH}, limit=100)
    (refused,) = compare_to_baseline([limited], [partial_baseline], allow_partial=True)
    assert refused.verdict == "partial"


def test_an_unscored_sample_fails():
    baseline = in_memory({0: HIGH, 4: LOW})
    records = list(baseline.records)
    records[-1] = make_record("s99", "apgd", 4.0, None, group="g99", error="NaN")
    findings = compare_to_baseline([Run(Path("new"), baseline.header, records)], [baseline])
    assert verdicts(findings) == ["ok", "missing"]


def test_two_runs_in_one_place_are_refused():
    with pytest.raises(ValueError, match="two runs of fare4 / vqa / mini-vqa, choose one: a and b"):
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


# ---- the claims ------------------------------------------------------------------------------------------

# encoder -> (clean, 2/255, 4/255), in percent
STORY = {
    "clip": (90, 20, 2),
    "fare2": (88, 50, 20),
    "fare4": (84, 60, 40),
    "tecoa2": (70, 40, 15),
    "tecoa4": (60, 35, 20),
}
DATASETS = {"zeroshot": ("shape", "colour"), "vqa": ("mini-vqa",), "captioning": ("mini-captions",)}
TRANSFER = {"protocol": {"surrogate": "clip"}, "attack": "apgd-from-clip"}
STEALTH = {"clip": (0, 50, 99), "fare4": (0, 1, 5)}


def percent(value, n=200):
    """Scores with the given mean; those of a smaller mean are a subset, as in a real attack."""
    return [100.0] * round(n * value / 100) + [0.0] * (n - round(n * value / 100))


def story(**changes) -> list[Run]:
    """Runs of which all claims hold, but for `changes`: encoder_task -> (clean, 2/255, 4/255)."""
    plan = {f"{e}_{task}": values for e, values in STORY.items() for task in DATASETS}
    plan |= {f"{e}_stealth": values for e, values in STEALTH.items()} | {"fare4_transfer": (84, 84, 80)}
    runs = []
    for name, values in (plan | changes).items():
        encoder, task = name.split("_")
        for dataset in DATASETS.get(task, (task,)):
            scores = {eps: percent(value) for eps, value in zip((0, 2, 4), values, strict=True)}
            changes = {"worst": "max" if task == "stealth" else "min"}
            if task == "transfer":
                task, dataset, changes = "vqa", "mini-vqa", TRANSFER
            runs.append(in_memory(scores, name=name, encoder=encoder, task=task, dataset=dataset, **changes))
    return runs


def failing(runs):
    return [result.name for result in evaluate_claims(runs) if not result.holds]


def test_the_story_holds_and_every_statement_has_numbers():
    results = evaluate_claims(story())
    assert failing(story()) == []
    assert len(results) == len(CLAIMS) == 18
    assert len({result.name for result in results}) == len(results)
    assert {result.name[:2] for result in results} == {"C1", "C2", "C3", "C4", "C5"}
    assert all("n = " in result.statement for result in results)


@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        ({"clip_zeroshot": (84, 20, 2)}, ["C1 clean zero-shot"]),
        ({"clip_zeroshot": (90, 20, 11)}, ["C1 attacked zero-shot"]),
        ({"clip_vqa": (84, 20, 2)}, ["C1 clean VQA"]),
        ({"clip_vqa": (90, 20, 6)}, ["C1 attacked VQA"]),
        ({"tecoa2_vqa": (88, 40, 15)}, ["C2 vqa, FARE above TeCoA, 2"]),
        (
            {"tecoa4_captioning": (83, 35, 20)},
            ["C2 captioning, FARE above TeCoA, 4"],
        ),  # above, not significant
        ({"fare2_vqa": (80, 50, 20)}, ["C2 vqa, FARE2 near CLIP"]),
        ({"fare4_vqa": (84, 60, 21)}, ["C3 VQA, FARE4 above CLIP"]),
        ({"tecoa2_captioning": (70, 51, 15)}, ["C3 captioning, FARE at least TeCoA, 2"]),
        ({"tecoa4_vqa": (60, 45, 41)}, ["C3 vqa, FARE at least TeCoA, 4"]),
        ({"clip_stealth": (5, 50, 99)}, ["C4 CLIP is taken over"]),
        ({"fare4_stealth": (0, 1, 34)}, ["C4 FARE4 at most a third"]),
        ({"fare4_transfer": (84, 80, 73)}, ["C5 CLIP's images on FARE4"]),
    ],
    ids=str,
)
def test_each_claim_breaks_by_itself(changes, broken):
    assert failing(story(**changes)) == broken


def test_robust_ties_are_enough_and_their_significance_is_said():
    results = {r.name: r for r in evaluate_claims(story(tecoa2_vqa=(70, 50, 15)))}
    tie = results["C3 vqa, FARE at least TeCoA, 2"]
    assert tie.holds
    assert "not significant" in tie.statement
    assert results["C3 vqa, FARE at least TeCoA, 4"].statement.endswith(", significant")


def test_a_statement_has_both_numbers_the_bound_and_the_test():
    claim = Claim("x", Quantity("fare4", "vqa", 4), ">=", Quantity("clip", "vqa", 4), offset=20)
    (result,) = evaluate_claims(story(), [claim])
    assert result.statement.startswith(
        "fare4 vqa 4/255 40.0 [33.5, 46.9] (n = 200), claimed >= 22.0 = clip vqa 4/255 2.0 ["
    )
    assert "+20; paired +38.0 [" in result.statement


def test_zero_shot_is_the_average_over_datasets():
    runs = [run for run in story() if (run.header.encoder, run.header.dataset) != ("clip", "colour")]
    runs.append(in_memory({0: percent(82, 50), 4: percent(0, 50)}, encoder="clip", task="zeroshot", dataset="colour"))
    (result,) = evaluate_claims(runs, CLAIMS[:1])
    assert result.holds  # (90 + 82) / 2 = 86, although fifty samples weigh as much as two hundred
    assert "clip zeroshot clean 86.0 [" in result.statement
    assert "(n = 250)" in result.statement


def test_what_was_not_measured_does_not_hold_and_is_named():
    results = evaluate_claims([])
    assert not any(result.holds for result in results)
    assert results[0].statement == "not measured: there is no run for clip zeroshot clean"
    runs = [run for run in story() if run.header.task != "stealth"]
    assert failing(runs) == ["C4 CLIP is taken over", "C4 FARE4 at most a third"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"limit": 200}, "is partial (--limit 200)"),
        ({"status": "partial"}, "is partial (status partial)"),
        ({"n_samples": 201}, "scored 200 of 201 samples"),
        ({"eps_255": (2.0,)}, "there is no run for fare4 vqa 4/255, images made on clip"),
    ],
)
def test_a_partial_run_carries_no_claim(changes, words):
    runs = [run for run in story() if "surrogate" not in run.header.protocol]
    scores = {0: percent(84), 2: percent(80), 4: percent(80)}
    runs.append(in_memory(scores, **TRANSFER | changes))
    (result,) = [result for result in evaluate_claims(runs) if result.name.startswith("C5")]
    assert not result.holds
    assert words in result.statement


def test_two_runs_for_one_claim_are_refused():
    with pytest.raises(ValueError, match="two runs for clip zeroshot clean, choose one"):
        evaluate_claims([*story(), *story()])


def test_other_samples_are_not_compared():
    runs = [run for run in story() if (run.header.encoder, run.header.task) != ("tecoa2", "vqa")]
    runs.append(in_memory({0: percent(70, 100), 2: percent(40, 100)}, encoder="tecoa2"))
    with pytest.raises(ValueError, match="not scored on the same samples"):
        evaluate_claims(runs)


def test_claims_as_markdown():
    lines = claims_markdown(evaluate_claims(story(clip_vqa=(84, 20, 2)))).splitlines()
    assert len(lines) == 2 + len(CLAIMS)
    assert lines[2].startswith("| C1 clean zero-shot | yes | clip zeroshot clean 90.0 [")
    assert lines[3].startswith("| C1 clean VQA | **no** | clip vqa clean 84.0 [")
