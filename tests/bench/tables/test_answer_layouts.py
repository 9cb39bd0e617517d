"""Layouts of POPE, of ScienceQA, and of transfer between models, from made-up runs."""

import json

import pytest

from bench.config.facts import SUITE_FACTS
from bench.regression.baseline import blocks
from bench.regression.compare import by_place
from bench.tables import render
from bench.tables.layouts import build, tables
from tests.bench.analysis.test_answers import counted_run
from tests.bench.tables.made import BAD, GOOD, vlm_run

LLAVA, FLAMINGO = "package:mini/weights/llava", "package:mini/weights/openflamingo"
NOISE = [{"name": "noise", "kind": "noise", "steps": 1}]


def test_pope_has_a_row_per_model_and_radius_and_a_column_per_count(tmp_path):
    wanted = ["yes", "no"] * 2
    runs = [
        counted_run(tmp_path / f"{model[-5:]}{encoder}", {0: said, 4: ["no", "no", "yes", "no"]}, wanted, model=model,
                    encoder=encoder, groups=["a", "a", "b", "b"])
        for model in (LLAVA, FLAMINGO)
        for encoder, said in (("fare4", ["yes", "no", "yes", "yes"]), ("clip", wanted))
    ]  # fmt: skip
    table = build("pope", runs, SUITE_FACTS)
    assert table.row_names == ("dataset", "radius", "victim", "encoder")
    assert [column[0] for column in table.columns] == ["accuracy", "precision", "recall", "F1", "yes-rate"]
    assert table.rows[:2] == (("pope-random", "clean", "llava", "clip"), ("pope-random", "clean", "llava", "fare4"))
    fare = {c[0]: table.cells[table.rows[1], c] for c in table.columns}
    assert {name: cell.measure.estimate.value for name, cell in fare.items()} == pytest.approx(
        {"accuracy": 75, "precision": 200 / 3, "recall": 100, "F1": 80, "yes-rate": 75}
    )
    assert {c.measure.part for c in table.cells.values() if c.best} == {"accuracy", "precision", "recall", "F1"}
    text = render.text(table)
    assert "pope: accuracy (%), precision (%), recall (%), F1 (%), yes-rate (%)" in text.replace("; pope:", ",")
    assert list(blocks(runs)) == ["pope", "claims"]
    assert "yes-rate" in blocks(runs)["pope"]


def test_scienceqa_has_the_official_columns_in_their_order(tmp_path):
    categories = [("LAN", "IMG", "G7-12"), ("NAT", "TXT", "G1-6")]
    run = counted_run(tmp_path, {0: ["yes", "no"]}, ["yes", "yes"], task="scienceqa", dataset="sqa", model=LLAVA,
                      categories=categories)  # fmt: skip
    table = build("scienceqa", [run], SUITE_FACTS)
    assert [column[0] for column in table.columns] == ["all", "NAT", "LAN", "TXT", "IMG", "G1-6", "G7-12"]
    assert list(blocks([run])) == ["scienceqa", "claims"]
    assert tables([run], SUITE_FACTS, ("pope",)) == []


def moved(place, encoder, model, source, scores, **changes):
    protocol = {"precision": "float32", "surrogate": source[0], "surrogate_model": source[1]}
    attack = f"pgd-from-{source[0]}@{source[1].rpartition('/')[2]}"
    return vlm_run(place, encoder, scores, model=model, attack=attack, protocol=protocol, **changes)


@pytest.fixture
def matrix(tmp_path):
    half = [100.0] * 5 + [0.0] * 5
    return [
        vlm_run(tmp_path / "l", "clip", {0: GOOD, 4: BAD}, model=LLAVA, attack="pgd"),
        vlm_run(tmp_path / "o", "clip", {0: GOOD, 4: BAD}, model=FLAMINGO, attack="pgd"),
        vlm_run(tmp_path / "n", "clip", {0: GOOD, 4: GOOD}, model=FLAMINGO, attack="noise", attack_steps=NOISE),
        moved(tmp_path / "lo", "clip", FLAMINGO, ("clip", LLAVA), {0: GOOD, 4: half}),
        moved(tmp_path / "ol", "fare4", LLAVA, ("clip", FLAMINGO), {0: GOOD, 4: half}),
        vlm_run(tmp_path / "x", "tecoa4", {0: GOOD, 4: BAD}, model=LLAVA, attack="pgd"),
    ]


def test_models_stand_against_models_with_their_floors_and_grey_boxes(matrix):
    table = build("models", matrix, SUITE_FACTS)
    assert table.row_names == ("dataset", "radius", "made on")
    assert table.columns == (("llava", "clip"), ("llava", "fare4"), ("openflamingo", "clip"))
    assert [row[1:] for row in table.rows] == [
        ("clean", ""), ("4/255", "random noise"), ("4/255", "llava clip"), ("4/255", "openflamingo clip"),
    ]  # fmt: skip
    at = {(row[2], column): cell for (row, column), cell in table.cells.items()}
    assert at["llava clip", ("openflamingo", "clip")].grey
    assert {key for key, cell in at.items() if cell.grey} == {("llava clip", ("openflamingo", "clip"))}
    assert at["random noise", ("openflamingo", "clip")].measure.estimate.value == 80
    assert at["openflamingo clip", ("llava", "fare4")].measure.estimate.value == 50
    assert at["openflamingo clip", ("openflamingo", "clip")].measure.estimate.value == 20
    assert "^: grey-box, the two models see through the same encoder." in render.text(table)
    assert r"$^{\wedge}$" in render.render(table, "latex")
    cells = json.loads(render.render(table, "json"))["cells"]
    assert sum(bool(cell["number"] and cell["number"]["grey_box"]) for cell in cells) == 1


def test_transfer_and_noise_are_in_no_table_of_plain_attacks(matrix):
    assert tables(matrix[2:5], SUITE_FACTS, ("robustness", "transfer")) == []
    table = build("robustness", matrix, SUITE_FACTS)
    assert table.row_names == ("victim", "encoder")
    assert table.rows == (("llava", "clip"), ("llava", "tecoa4"), ("openflamingo", "clip"))
    assert list(blocks(matrix)) == ["vqa", "models", "claims"]


def test_runs_of_two_victims_or_settings_have_places_of_their_own_in_the_baseline(matrix, tmp_path):
    protocol = {"precision": "float32", "victim": {"shots": "4"}}
    shots = vlm_run(tmp_path / "s", "clip", {0: GOOD, 4: BAD}, model=FLAMINGO, attack="pgd", protocol=protocol)
    assert len(by_place([*matrix, shots])) == len(matrix) + 1
    table = build("robustness", [*matrix, shots], SUITE_FACTS)
    assert table.row_names == ("victim", "encoder", "settings")
    assert ("openflamingo", "clip", "shots=4") in table.rows
