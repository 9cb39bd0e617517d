"""The table of defences: the published number, the adaptive one and the gap, of records made by hand."""

from pathlib import Path

from attacks.adaptive import adaptive_steps
from attacks.presets import PRESETS
from bench.analysis.defences import defended
from bench.config.facts import SUITE_FACTS
from bench.records import Run
from bench.records.worst import scores_at, worst_records, worst_scores
from bench.running.reliability import reliability_checks
from bench.tables import layouts
from bench.tables.render import render
from tests.bench.runs import in_memory, make_header, make_record

STEPS = adaptive_steps(PRESETS["apgd"].steps, randomised=False, own_gradient=False)


def rows(scores: dict[str, list[float]]):
    """Scores of s0, s1, ... by step."""
    return [
        make_record(f"s{k}", step, 0.0 if step == "clean" else 4.0, score)
        for step, column in scores.items()
        for k, score in enumerate(column)
    ]


def defended_run(scores, **changes) -> Run:
    header = {
        "task": "zeroshot",
        "dataset": "d",
        "metric": "accuracy (%)",
        "model": None,
        "radii": (4.0,),
        "n_samples": len(scores["clean"]),
        "status": "complete",
        "attack": "adaptive-apgd",
        "attack_steps": [step.as_data() for step in STEPS],
        "protocol": {"precision": "float32", "defence": "ttc"},
    }
    return Run(Path("defended"), make_header(**header | changes), rows(scores))


SCORES = {
    "clean": [100.0, 100.0, 100.0, 0.0],
    "published": [100.0, 100.0, 0.0],
    "undefended:apgd": [100.0, 100.0],
    "as-is:apgd": [100.0, 100.0, 100.0],
    "bpda:apgd": [0.0, 100.0, 0.0],
}


def plain_run():
    shape = {"task": "zeroshot", "dataset": "d", "metric": "accuracy (%)", "model": None, "attack": "apgd"}
    return in_memory({0: [100.0] * 4, 4.0: [0.0] * 4}, name="plain", **shape)


def test_both_protocols_and_the_gap():
    found = {(m.header.defence, m.counted): m.estimate.value for m in defended([defended_run(SCORES), plain_run()])}
    assert found == {
        ("ttc", "clean"): 75.0,
        ("ttc", "published protocol"): 50.0,
        ("ttc", "adaptive protocol"): 25.0,
        ("ttc", "gap"): 25.0,
        (None, "clean"): 100.0,
        (None, "adaptive protocol"): 0.0,
    }


def test_the_layout_says_what_to_rely_upon():
    doubtful = [{"name": "finite_differences", "ok": False, "detail": ""}]
    table = layouts.build("defences", [defended_run(SCORES, checks=doubtful), plain_run()], SUITE_FACTS)
    text = render(table, "markdown")
    assert "unreliable (finite" in text
    assert "| reliable |" in text
    assert "25.0" in text


def test_where_gradients_are_masked_it_says_whether_the_stand_in_has_better_ones():
    masked = {"name": "finite_differences", "ok": False, "detail": ""}
    stand_in = {"name": "stand_in", "ok": True, "detail": ""}

    def shown(*checks):
        return render(layouts.build("defences", [defended_run(SCORES, checks=list(checks))], SUITE_FACTS), "text")

    assert "unreliable (finite_differences); stand-in agrees" in shown(masked, stand_in)
    assert "agrees" not in shown(masked, stand_in | {"ok": False})
    assert "agrees" not in shown(masked)
    assert "agrees" not in shown({"name": "knowledge_helps", "ok": False, "detail": ""}, stand_in)


def test_defended_runs_stand_in_no_other_layout():
    runs = [defended_run(SCORES), plain_run()]
    measures = layouts.find("zeroshot").measures(runs, SUITE_FACTS)
    assert {m.header.defence for m in measures} == {None}


def knowledge(scores):
    run = defended_run(scores)
    checks = {check.name: check for check in reliability_checks(run.header, STEPS, run.records)}
    return checks["knowledge_helps"]


def test_less_knowledge_must_not_win():
    assert knowledge(SCORES).ok
    weak = SCORES | {"bpda:apgd": [100.0, 100.0, 100.0]}
    assert not knowledge(weak).ok
    assert "'undefended' win by 25.0 points" in knowledge(weak).detail
    asked = SCORES | {"black-box": [0.0, 0.0]}
    assert not knowledge(asked).ok
    assert "'queries'" in knowledge(asked).detail


def test_one_sample_in_a_thousand_is_forgiven():
    many = {step: column * 300 for step, column in SCORES.items() if step != "undefended:apgd"}
    many["bpda:apgd"][0] = 0.0
    many["published"][4] = 0.0
    assert knowledge(many).ok


def test_the_worst_is_chosen_by_the_screen_and_scored_by_the_fresh_draws():
    one = [
        make_record("s0", "clean", 0.0, 100.0, screen=100.0),
        make_record("s0", "a", 4.0, 10.0, screen=60.0),
        make_record("s0", "b", 4.0, 40.0, screen=20.0),
    ]
    header = make_header(radii=(4.0,), protocol={"precision": "float32", "defence": "ttc"})
    assert worst_records(header, one, 4.0)["s0"].step == "b"
    assert worst_scores(header, one, 4.0) == scores_at(Run(Path("r"), header, one), 4.0) == {"s0": 40.0}
