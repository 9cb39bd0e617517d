import pytest

from bench.errors import UsageError
from bench.mini.claims import CLAIMS, Claim, Quantity, claims_markdown, evaluate_claims
from bench.records import Run
from tests.bench.runs import in_memory

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


QWEN = {"native": (95, 30, 2)}
FLAMINGO = {"clip": (62, 20, 4), "fare4": (61, 50, 40), "tecoa4": (48, 40, 25)}
MODELS = {name: f"package:mini/weights/{name}" for name in ("llava", "openflamingo", "qwen2vl")}


def percent(value, n=200):
    """Scores with the given mean; those of a smaller mean are a subset, as in a real attack."""
    return [100.0] * round(n * value / 100) + [0.0] * (n - round(n * value / 100))


def story(**changes) -> list[Run]:
    """Runs of which all claims hold, but for `changes`: encoder_task -> (clean, 2/255, 4/255)."""
    plan = {f"{e}_{task}": values for e, values in STORY.items() for task in DATASETS}
    plan |= {f"{e}_stealth": values for e, values in STEALTH.items()} | {"fare4_transfer": (84, 84, 80)}
    plan |= {f"{e}_{task}_openflamingo": values for e, values in FLAMINGO.items() for task in ("vqa", "captioning")}
    plan |= {f"{e}_vqa_qwen2vl": values for e, values in QWEN.items()}
    runs = []
    for name, values in (plan | changes).items():
        encoder, task, *family = name.split("_")
        for dataset in DATASETS.get(task, (f"mini-{task}",)):
            scores = {eps: percent(value) for eps, value in zip((0, 2, 4), values, strict=True)}
            changes = {"worst": "max" if task == "stealth" else "min", "model": MODELS[(family or ["llava"])[0]]}
            if task == "transfer":
                task, dataset, changes = "vqa", "mini-vqa", changes | TRANSFER
            runs.append(in_memory(scores, name=name, encoder=encoder, task=task, dataset=dataset, **changes))
    return runs


def failing(runs):
    return [result.name for result in evaluate_claims(runs) if not result.holds]


def test_the_story_holds_and_every_statement_has_numbers():
    results = evaluate_claims(story())
    assert failing(story()) == []
    assert len(results) == len(CLAIMS) == 29
    assert len({result.name for result in results}) == len(results)
    assert {result.name[:2] for result in results} == {"C1", "C2", "C3", "C4", "C5"}
    assert all("n = " in result.statement for result in results)


@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        ({"clip_vqa_openflamingo": (54, 20, 4)}, ["C1 clean VQA, OpenFlamingo"]),
        ({"clip_vqa_openflamingo": (62, 20, 8)}, ["C1 attacked VQA, OpenFlamingo"]),
        ({"tecoa4_captioning_openflamingo": (60, 40, 25)}, ["C2 captioning, FARE4 above TeCoA4, OpenFlamingo"]),
        ({"fare4_vqa_openflamingo": (55, 50, 40)}, ["C2 vqa, FARE4 near CLIP, OpenFlamingo"]),
        ({"tecoa4_captioning_openflamingo": (48, 44, 41)}, ["C3 captioning, FARE4 at least TeCoA4, OpenFlamingo"]),
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
        ({"clip_stealth": (5, 50, 99)}, ["C4 CLIP says the target"]),
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
    claim = Claim(
        "x", Quantity("fare4", "vqa", 4, family="llava"), ">=", Quantity("clip", "vqa", 4, family="llava"), offset=20
    )
    (result,) = evaluate_claims(story(), [claim])
    assert result.statement.startswith(
        "fare4 in llava vqa 4/255 40.0 [33.5, 46.9] (n = 200), claimed >= 22.0 = clip in llava vqa 4/255 2.0 ["
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
    assert failing(runs) == ["C4 CLIP says the target", "C4 FARE4 at most a third"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"limit": 200}, "is partial (--limit 200)"),
        ({"status": "partial"}, "is partial (status partial)"),
        ({"n_samples": 201}, "scored 200 of 201 samples"),
        ({"radii": (2.0,)}, "there is no run for fare4 in llava vqa 4/255, images made on clip"),
    ],
)
def test_a_partial_run_carries_no_claim(changes, words):
    runs = [run for run in story() if not run.header.surrogate]
    scores = {0: percent(84), 2: percent(80), 4: percent(80)}
    runs.append(in_memory(scores, **TRANSFER | changes))
    (result,) = [result for result in evaluate_claims(runs) if result.name.startswith("C5")]
    assert not result.holds
    assert words in result.statement


def test_noise_shots_and_images_of_another_model_are_no_evidence():
    """Nor do they count as a second run."""
    runs, scores = story(), {0: percent(90), 4: percent(90)}
    steps = [{"name": "noise", "kind": "noise", "steps": 1}]
    runs.append(in_memory(scores, encoder="clip", attack="noise", attack_steps=steps, model=MODELS["llava"]))
    for protocol in ({"victim": {"shots": "4"}}, {"surrogate": "clip", "surrogate_model": MODELS["llava"]}):
        runs.append(in_memory(scores, encoder="clip", protocol=protocol, model=MODELS["openflamingo"]))
    assert failing(runs) == []


def test_two_runs_for_one_claim_are_refused():
    with pytest.raises(UsageError, match="two runs for clip zeroshot clean, choose one"):
        evaluate_claims([*story(), *story()])


def test_other_samples_are_not_compared():
    runs = [run for run in story() if (run.header.encoder, run.header.task) != ("tecoa2", "vqa")]
    runs.append(in_memory({0: percent(70, 100), 2: percent(40, 100)}, encoder="tecoa2"))
    with pytest.raises(UsageError, match="not scored on the same samples"):
        evaluate_claims(runs)


def test_claims_as_markdown():
    lines = claims_markdown(evaluate_claims(story(clip_vqa=(84, 20, 2)))).splitlines()
    assert len(lines) == 2 + len(CLAIMS)
    assert lines[2].startswith("| C1 clean zero-shot | yes | clip zeroshot clean 90.0 [")
    assert lines[4].startswith("| C1 clean VQA | **no** | clip in llava vqa clean 84.0 [")
