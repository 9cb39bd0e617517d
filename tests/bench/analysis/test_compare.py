"""Paired comparisons of runs: numbers, refusals, flips, and the command."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.analysis.compare import CONDITIONS, compare
from bench.analysis.stats import mcnemar
from bench.cli import main
from bench.errors import UsageError
from bench.records import Run
from tests.bench.runs import in_memory, make_header, make_record, make_run

UP = [100.0] * 12 + [0.0] * 8
DOWN = [0.0] * 10 + [100.0] * 4 + [0.0] * 6  # ten lost, two gained


def test_a_pair_is_compared_clean_and_at_every_radius_with_mcnemars_p():
    clean, attacked = compare([in_memory({0: UP, 4: UP})], [in_memory({0: UP, 4: DOWN}, encoder="clip")])
    assert (clean.name, attacked.name) == ("vqa / mini-vqa, clean", "vqa / mini-vqa at 4/255")
    assert (clean.change.difference, clean.change.p, clean.flips) == (0.0, 1.0, ())
    # the worst case includes the clean answer: the two gained at 4/255 were wrong clean
    assert (attacked.a_value, attacked.b_value, attacked.change.difference) == (60.0, 10.0, -50.0)
    assert attacked.change.p == mcnemar(0, 10)
    assert attacked.p_holm == pytest.approx(2 * mcnemar(0, 10))
    assert attacked.change.test == "exact McNemar test"
    assert {flip.sample_id for flip in attacked.flips} == {f"s{i}" for i in range(10)}
    assert (attacked.rose, attacked.change.n, attacked.left_out) == (0, 20, 0)


def test_questions_of_one_image_are_one_witness():
    groups = [f"g{i // 4}" for i in range(20)]
    (alone,) = compare([in_memory({0: [100.0] * 20})], [in_memory({0: [0.0] * 20})])
    (together,) = compare([in_memory({0: [100.0] * 20}, groups)], [in_memory({0: [0.0] * 20}, groups)])
    assert alone.change.p == pytest.approx(2 / 2**20)
    assert together.change.p == pytest.approx(2 / 2**5)
    assert together.change.test == "exact sign-flip test by image"


def test_a_flip_has_the_answers_of_the_worst_case(tmp_path):
    a, b = in_memory({0: [100.0], 2: [100.0], 4: [100.0]}), in_memory({0: [100.0], 2: [30.0], 4: [50.0]})
    answers = {0.0: "clean", 2.0: "at two", 4.0: "at four"}
    for run in (a, b):
        run.records[:] = [
            make_record(r.sample_id, r.step, r.radius, r.score, group=r.group, prediction=answers[r.radius])
            for r in run.records
        ]
    (flip,) = compare([a], [b])[2].flips  # at 4/255 the image found at 2/255 is still the worst
    assert (flip.a_score, flip.b_score, flip.a_answer, flip.b_answer) == (100.0, 30.0, "clean", "at two")


OTHER = {
    "dataset": "other",
    "dataset_fingerprint": "x",
    "task_version": 2,
    "model": "other",
    "protocol": {"precision": "bfloat16"},
    "norm": "l2",
    "radii": (4.0, 8.0),
    "attack": "apgd",
    "attack_steps": [],
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_other_conditions_are_refused_by_name_unless_allowed(name):
    a = in_memory({0: UP, 4: UP})
    b = in_memory({0: UP, 4: DOWN}, name="other", **{name: OTHER[name]})
    with pytest.raises(
        UsageError, match=f"run and other cannot be compared: {name}.* is .* in the second; --allow {name}"
    ):
        compare([a], [b])
    another = next(field for field in CONDITIONS if field != name)
    with pytest.raises(UsageError, match=f"{name}.* is"):
        compare([a], [b], [another])
    for allow in (name, "all"):
        assert [c.radius for c in compare([a], [b], [allow])] == [0.0, 4.0]


@pytest.mark.parametrize("change", [{"task": "captioning"}, {"metric": "CIDEr"}, {"worst": "max"}], ids=str)
def test_what_means_another_thing_is_never_compared(change):
    with pytest.raises(UsageError, match=f"{next(iter(change))} is"):
        compare([in_memory({0: UP})], [in_memory({0: UP}, **change)], ["all"])


def test_other_samples_are_left_out_only_if_told_and_said():
    a, b = in_memory({0: UP}), in_memory({0: UP[:15]}, limit=15)
    with pytest.raises(UsageError, match=r"sample s15 is scored in one .*\(5 such\); --allow samples"):
        compare([a], [b])
    (result,) = compare([a], [b], ["samples"])
    assert (result.change.n, result.left_out) == (15, 5)


def test_an_error_row_is_not_compared_in_silence():
    a, b = in_memory({0: UP}), in_memory({0: UP})
    b.records[3] = make_record("s3", score=None, group="g3", error="NaN")
    with pytest.raises(UsageError, match="sample s3 is scored in one"):
        compare([a], [b])


def test_sets_pair_by_what_they_have_several_of():
    def side(encoders, **changes):
        return [in_memory({0: UP}, encoder=e, dataset=d, **changes) for e in encoders for d in ("x", "y")]

    pairs = compare(side(["clip"]), side(["fare4"]))  # one encoder each: they are what is compared
    assert [(c.a.header.encoder, c.b.header.encoder, c.a.header.dataset) for c in pairs] == [
        ("clip", "fare4", "x"),
        ("clip", "fare4", "y"),
    ]
    pairs = compare(side(["clip", "fare4"]), side(["fare4", "clip"], suite="other"))
    assert [(c.a.header.encoder, c.b.header.encoder) for c in pairs] == [("clip",) * 2] * 2 + [("fare4",) * 2] * 2
    victims = [run for model in ("one", "two") for run in side(["clip"], model=model)] + [
        in_memory({0: UP}, task="zeroshot", encoder="clip", model=None)
    ]
    models = [(c.a.header.model, c.b.header.model) for c in compare(victims, victims[::-1])]
    assert models == [*[("one", "one")] * 2, *[("two", "two")] * 2, (None, None)]
    with pytest.raises(UsageError, match=r"vqa / x / clip is in the first set of runs only \(2 such\)"):
        compare(side(["clip", "fare4"]), side(["fare4"]))
    assert len(compare(side(["clip", "fare4"]), side(["fare4"]), ["runs"])) == 2
    with pytest.raises(UsageError, match="two runs of vqa / x on one side"):
        compare(side(["clip"]) * 2, side(["fare4"]))
    with pytest.raises(UsageError, match="nothing to compare"):
        compare(side(["clip"]), [in_memory({0: UP}, dataset="z")] * 1 + [in_memory({0: UP}, dataset="w")], ["runs"])


def test_an_unknown_allowance_is_named():
    with pytest.raises(UsageError, match="cannot allow a difference in 'colour'; known: dataset, "):
        compare([], [], ["colour"])


# ---- the command -----------------------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path):
    make_run(tmp_path / "a", {0: UP, 4: UP})
    make_run(tmp_path / "b", {0: UP, 4: DOWN}, encoder="clip")
    return str(tmp_path / "a"), str(tmp_path / "b")


@pytest.mark.parametrize(
    "ids",
    [
        ["s0", "s1", "s2", "s10", "s11", "s100"],
        ["2", "007", "10"],
        ["9" * 5000, "1" + "0" * 5000],
        ["a2b9", "a2b10", "a11b1"],
    ],
    ids=lambda ids: ids[0][:6],
)
def test_flips_of_one_size_stand_in_the_order_of_their_numbers(ids):
    def run(score):
        return Run(
            Path("x"), make_header(n_samples=len(ids), radii=()), [make_record(i, score=score) for i in ids[::-1]]
        )

    ((clean,),) = [compare([run(100.0)], [run(0.0)])]
    assert [flip.sample_id for flip in clean.flips] == ids


def test_the_command_shows_numbers_and_flips(two):
    result = CliRunner().invoke(main, ["compare", *two, "--flips", "3"])
    assert result.exit_code == 0
    assert "fare4 -> clip / vqa / mini-vqa at 4/255: 60.0 -> 10.0\n" in result.stdout
    assert "  difference -50.0 [" in result.stdout
    assert "p = 0.0020, n = 20; corrected p = 0.0039 (exact McNemar test)" in result.stdout
    assert "  samples: 0 score more, 10 less, 10 the same" in result.stdout
    assert result.stdout.count("'a red circle' -> 'a red circle'") == 3


def test_json_is_all_that_is_on_stdout_and_has_every_flip(two):
    result = CliRunner().invoke(main, ["compare", *two, "--json"])
    clean, attacked = json.loads(result.stdout)
    assert clean["flips"] == []
    about = {key: attacked[key] for key in ("task", "dataset", "metric", "norm", "radius", "n", "left_out")}
    named = {"task": "vqa", "dataset": "mini-vqa", "metric": "accuracy", "norm": "linf"}
    assert about == named | {"radius": 4.0, "n": 20, "left_out": 0}
    assert len(attacked["flips"]) == 10
    assert attacked["b"] == {"directory": two[1], "encoder": "clip", "attack": "ensemble", "partial": None, "value": 10}
    assert attacked["low"] < attacked["difference"] == -50 < attacked["high"] < 0


def test_orders_of_radii_are_refused_by_name_though_a_header_leaves_ascending_out():
    orders = ({"precision": "float32"}, {"precision": "float32", "radii_order": "adaptive"})
    a, b = ([in_memory({0: UP, 2: UP, 4: UP}, protocol=protocol)] for protocol in orders)
    with pytest.raises(UsageError, match=r"radii_order is 'ascending' in the first and 'adaptive' in the second"):
        compare(a, b)
    assert len(compare(a, b, allow=["protocol"])) == 3


def test_the_command_refuses_in_one_line_and_warns_of_partial_runs(two, tmp_path):
    make_run(tmp_path / "c", {0: UP, 4: UP}, task_version=2, status="partial")
    refused = CliRunner().invoke(main, ["compare", two[0], str(tmp_path / "c")])
    assert refused.exit_code == 2
    assert "task_version is 1 in the first and 2 in the second" in refused.stderr
    assert refused.stderr.count("\n") == 1
    allowed = CliRunner().invoke(main, ["compare", two[0], str(tmp_path / "c"), "--allow-differences"])
    assert allowed.exit_code == 0
    assert "the second run is partial (status partial): do not quote this" in allowed.stdout
