"""Layouts filled from made-up runs."""

from pathlib import Path

import pytest

from bench.analysis.cells import TO_CAPTIONS, averaged
from bench.config import load_suite
from bench.config.facts import SUITE_FACTS
from bench.errors import UsageError
from bench.records import archive_run, load_run, load_runs
from bench.records.samples import Asked, write_samples
from bench.registry import LAYOUTS
from bench.tables import layouts, render
from bench.tables.layouts import build
from tasks.metrics import Cider
from tests.bench.runs import make_record, make_run
from tests.bench.tables.made import BAD, GOOD, TARGETS, stealth_run, vlm_run

ROOT = Path(__file__).parents[3]


def test_robustness_is_encoder_by_dataset_by_radius(vision):
    table = build("robustness", vision, SUITE_FACTS)
    assert table.rows == (("clip",), ("fare4",))  # the paper's order
    radii = ("clean", "2/255", "4/255")
    assert set(table.columns) == {("mini-vqa", r) for r in radii} | {("mini-caption", r) for r in ("clean", "4/255")}
    assert [column for column in table.columns if column[0] == "mini-vqa"] == [("mini-vqa", r) for r in radii]
    cell = table.cells[("clip",), ("mini-vqa", "2/255")]
    assert (cell.measure.estimate.value, cell.measure.estimate.n) == (20.0, 10)
    assert cell.measure.directories == (vision[1].directory,)
    assert (("fare4",), ("mini-caption", "clean")) not in table.cells
    assert "not measured" in render.text(table)


def test_the_best_has_rivals_and_is_whole(vision, tmp_path):
    partial = vlm_run(tmp_path, "x", {0: [100.0] * 10, 2: [100.0] * 10, 4: GOOD}, limit=10)
    table = build("robustness", [*vision, partial], SUITE_FACTS)
    best = {(row[0], column) for (row, column), cell in table.cells.items() if cell.best}
    both = {(encoder, ("mini-vqa", radius)) for encoder in ("clip", "fare4") for radius in ("clean", "4/255")}
    assert best == both | {("fare4", ("mini-vqa", "2/255"))}  # ties are both best; the only caption run has no rival


def test_zeroshot_has_a_column_a_dataset_and_the_average_last(tmp_path):
    runs = [
        make_run(tmp_path / f"{e}-{d}", {0: GOOD[:n], 4: BAD[:n]}, encoder=e, task="zeroshot", dataset=d, model=None)
        for e in ("fare4", "clip")
        for d, n in (("shape", 10), ("colour", 5))
    ]
    table = build("zeroshot", runs, SUITE_FACTS)
    assert table.columns == (("shape",), ("colour",), ("average",))
    assert table.rows == (("clean", "clip"), ("clean", "fare4"), ("4/255", "clip"), ("4/255", "fare4"))
    average = table.cells[("4/255", "clip"), ("average",)]
    assert average.measure.estimate.value == pytest.approx((20 + 40) / 2)
    assert set(average.measure.directories) == {runs[2].directory, runs[3].directory}


def test_targets_are_told_apart_and_lower_is_better(tmp_path):
    clean = ["a red bar"] * 4
    runs = [
        stealth_run(tmp_path / "clip", "clip", {0.0: clean, 4.0: [TARGETS[0], TARGETS[1], TARGETS[0], "a red bar"]}),
        stealth_run(tmp_path / "fare4", "fare4", {0.0: clean, 4.0: [TARGETS[0], "no", "no", "no"]}),
    ]
    table = build("targeted", runs, SUITE_FACTS)
    assert table.columns == tuple(("mini-stealth", name) for name in (*TARGETS, "all targets"))
    at = {(row, column[1]): cell for (row, column), cell in table.cells.items()}
    values = {key: cell.measure.estimate.value for key, cell in at.items()}
    assert values[("4/255", "clip"), TARGETS[0]] == 100
    assert values[("4/255", "clip"), TARGETS[1]] == 50
    assert values[("4/255", "clip"), "all targets"] == 75
    assert values[("4/255", "fare4"), "all targets"] == 25
    assert at[("4/255", "fare4"), TARGETS[1]].best
    assert not at[("4/255", "clip"), TARGETS[1]].best


def test_records_that_contradict_the_suites_targets_are_refused(tmp_path):
    run = stealth_run(tmp_path, "clip", {0.0: ["no"] * 2, 4.0: [TARGETS[0], "no"]})
    swapped = [
        r if r.score == 0 else make_record("s1", "apgd", 4.0, 100.0, prediction=r.prediction) for r in run.records
    ]
    with pytest.raises(UsageError, match=r"'s1'.*a black bar"):
        build("targeted", [type(run)(run.directory, run.header, swapped)], SUITE_FACTS)


def test_transfers_stand_beside_white_box_attacks(vision, tmp_path):
    protocol = {"precision": "float32", "surrogate": "clip"}
    moved = vlm_run(tmp_path / "t", "fare4", {0: GOOD, 4: GOOD}, attack="apgd-from-clip", protocol=protocol)
    table = build("transfer", [*vision, moved], SUITE_FACTS)
    assert table.columns == (("itself",), ("clip",))
    values = {key: cell.measure.estimate.value for key, cell in table.cells.items()}
    assert values[("mini-vqa", "4/255", "fare4"), ("clip",)] == 80
    assert values[("mini-vqa", "4/255", "fare4"), ("itself",)] == 20
    assert layouts.tables([moved], SUITE_FACTS, ("robustness",)) == []


def test_runs_of_different_protocols_or_norms_share_no_table(vision, tmp_path):
    paper = vlm_run(tmp_path / "p", "tecoa4", {0: GOOD}, protocol={"precision": "fp16", "name": "paper"})
    with pytest.raises(UsageError, match=r"protocols.*fare4-mini-vqa \(protocol 'strict'\).*\(protocol 'paper'\)"):
        build("robustness", [*vision, paper], SUITE_FACTS)
    named = vlm_run(tmp_path / "n", "tecoa4", {0: GOOD}, protocol={"name": "strict"})
    build("robustness", [*vision, named], SUITE_FACTS)
    l2 = vlm_run(tmp_path / "l", "tecoa4", {0: GOOD, 0.5: GOOD}, norm="l2")
    with pytest.raises(UsageError, match="norms"):
        build("flat", [*vision, l2], SUITE_FACTS)
    assert ("0.5 (l2)",) in build("flat", [l2], SUITE_FACTS).columns


def test_an_empty_layout_and_an_unknown_one_are_refused(vision):
    with pytest.raises(UsageError, match="no run has results for layout 'targeted'"):
        build("targeted", vision, SUITE_FACTS)
    with pytest.raises(UsageError, match="did you mean 'robustness'"):
        build("robustnes", vision, SUITE_FACTS)


def test_a_whole_run_stands_for_a_partial_one_of_the_same(vision, tmp_path):
    partial = vlm_run(tmp_path / "limit", "clip", {0: BAD, 2: BAD, 4: BAD}, limit=10)
    table = build("robustness", [partial, *vision], SUITE_FACTS)
    assert table.cells[("clip",), ("mini-vqa", "clean")].measure.estimate.value == 80
    assert table.banner is None
    assert table.left_out == (str(partial.directory),)
    assert f"Left out, since a whole run has the same numbers: {partial.directory}" in render.text(table)


@pytest.mark.parametrize(
    ("changes", "name", "labels"),
    [
        ({"seed": 1}, "seed", ("0", "1")),
        ({"attack": "apgd"}, "attack", ("ensemble", "apgd")),
        ({"protocol": {"precision": "bf16"}}, "precision", ("float32", "bf16")),
        ({"protocol": {"precision": "float32", "data": "vqa:other"}}, "data", ("", "vqa:other")),
        ({"suite": "mini-full"}, "suite", ("mini", "mini-full")),
    ],
    ids=str,
)
def test_two_whole_runs_for_one_cell_stand_in_rows_of_their_own(vision, tmp_path, changes, name, labels):
    again = vlm_run(tmp_path / "again", "clip", {0: BAD, 2: BAD, 4: BAD}, **changes)
    table = build("robustness", [*vision, again], SUITE_FACTS)
    assert table.row_names == ("encoder", name)
    assert {row[1] for row in table.rows if row[0] == "clip"} == set(labels)
    assert len(table.cells) == 3 + 3 + 3 + 2


def test_two_partial_runs_are_both_shown(tmp_path):
    runs = [vlm_run(tmp_path / str(n), "clip", {0: GOOD[:n], 4: BAD[:n]}, limit=n) for n in (5, 10)]
    table = build("flat", runs, SUITE_FACTS)
    assert (table.row_names[-1], [row[-1] for row in table.rows]) == ("samples", ["5", "10"])


def test_runs_that_nothing_else_tells_apart_are_named_by_their_folders(vision, tmp_path):
    again = vlm_run(tmp_path / "again", "clip", {0: BAD, 2: BAD, 4: BAD})
    table = build("robustness", [*vision, again], SUITE_FACTS)
    assert table.row_names == ("encoder", "run")
    assert ("clip", str(again.directory)) in table.rows


def test_no_average_is_made_of_two_runs_of_one_dataset(tmp_path):
    def run(name, dataset, **changes):
        return make_run(tmp_path / name, {0: GOOD}, task="zeroshot", dataset=dataset, model=None, **changes)

    runs = [run("a", "shape"), run("b", "colour")]
    assert len(averaged(runs, SUITE_FACTS)) == 1
    partial = run("c", "shape", limit=10)
    (average,) = averaged([partial, *runs], SUITE_FACTS)
    assert average.whole
    assert averaged([*runs, run("d", "shape", seed=1)], SUITE_FACTS) == []
    assert build("zeroshot", [*runs, run("e", "shape", seed=2)], SUITE_FACTS).columns == (("shape",), ("colour",))


def test_targets_of_an_unknown_suite_are_told_apart_where_the_run_wrote_them_down(tmp_path):
    said = {0.0: ["no"] * 2, 4.0: [TARGETS[0], "no"]}
    table = build("targeted", [stealth_run(tmp_path, "clip", said, suite="my-own")], SUITE_FACTS)
    assert table.columns == (("mini-stealth", "all targets"),)
    write_samples(tmp_path, [Asked("s0", "?", (TARGETS[0],)), Asked("s1", "?", (TARGETS[1],))])
    table = build("targeted", [load_run(tmp_path)], SUITE_FACTS)
    assert table.columns == tuple(("mini-stealth", name) for name in (*TARGETS, "all targets"))
    assert table.cells[("4/255", "clip"), ("mini-stealth", TARGETS[0])].measure.estimate.value == 100


def test_what_is_left_of_the_captions_stands_beside_the_success_rate(tmp_path):
    """The last attack counts, whether it reached its target or not; higher is better there."""
    captions = (("a red bar",), ("a blue ring and a star",))
    said = {0.0: ["a red bar", "a blue ring and a star"], 4.0: [TARGETS[0], "a blue ring and a star"]}
    runs = [
        stealth_run(tmp_path / "clip", "clip", said),
        stealth_run(tmp_path / "fare4", "fare4", {**said, 4.0: ["a green cross", "a white bar"]}),
    ]
    assert ("mini-stealth", TO_CAPTIONS) not in build("targeted", runs, SUITE_FACTS).columns
    for run in runs:
        asked = [Asked(f"s{i}", "?", (TARGETS[i],), captions=captions[i]) for i in (0, 1)]
        write_samples(run.directory, asked)
    table = build("targeted", runs, SUITE_FACTS)
    assert table.columns[-1] == ("mini-stealth", TO_CAPTIONS)
    cells = {row: cell for (row, column), cell in table.cells.items() if column == table.columns[-1]}
    values = {row: cell.measure.estimate.value for row, cell in cells.items()}
    cider = Cider({"g0": captions[0], "g1": captions[1]})
    whole = [cider.score(f"g{i}", captions[i][0]) for i in (0, 1)]
    assert values["clean", "clip"] == values["clean", "fare4"] == pytest.approx(sum(whole) / 2)
    assert values["4/255", "clip"] == pytest.approx((cider.score("g0", TARGETS[0]) + whole[1]) / 2)
    assert values["4/255", "fare4"] < values["4/255", "clip"]
    assert cells["4/255", "clip"].best
    assert not cells["4/255", "fare4"].best
    assert {cell.measure.metric for cell in cells.values()} == {"CIDEr"}
    assert "stealth: attack success rate (%); stealth: CIDEr." in render.text(table)
    archived = tmp_path / "archive"
    archive_run(runs[0].directory, archived)
    assert ("mini-stealth", TO_CAPTIONS) in build("targeted", [load_run(archived)], SUITE_FACTS).columns


def test_the_papers_targets_are_known(tmp_path):
    texts = [target["text"] for target in load_suite("paper").datasets["coco-stealth"]["targets"]]
    run = make_run(tmp_path, {0: [0.0] * 12}, suite="paper", task="stealth", dataset="coco-stealth", worst="max")
    table = build("targeted", [run], SUITE_FACTS)
    assert table.columns == tuple(("coco-stealth", text) for text in (*texts, "all targets"))
    assert {cell.measure.estimate.n for (_, column), cell in table.cells.items() if column[1] in texts} == {2}


def test_the_committed_results_fill_every_layout():
    runs = load_runs([ROOT / "results" / "mini"])
    found = [table.name for table in layouts.tables(runs, SUITE_FACTS)]
    assert found == [name for name in LAYOUTS if name in found]
    assert {"flat", "robustness", "zeroshot", "targeted", "transfer"} <= set(found)
    for table in layouts.tables(runs, SUITE_FACTS):
        assert table.banner is None
        assert all(cell.published is None for cell in table.cells.values())


def test_several_surrogates_make_a_matrix(tmp_path):
    scores = {("clip", "clip"): 0.0, ("clip", "fare4"): 30.0, ("fare4", "clip"): 90.0, ("fare4", "fare4"): 50.0}
    runs = [
        make_run(
            tmp_path / f"{encoder}-{source}",
            {0.0: [100.0], 4.0: [score]},
            encoder=encoder,
            attack=f"transfer-from-{source}",
            protocol={"surrogate": source},
        )
        for (encoder, source), score in scores.items()
    ]
    table = build("transfer", runs, SUITE_FACTS)
    found = {(row[2], column[0]): cell.measure.estimate.value for (row, column), cell in table.cells.items()}
    assert found == scores
