"""Surrogates against victims, with floors and grey-box marks; shares of images that are taken for their targets."""

from pathlib import Path

import pytest

from bench.config.facts import SUITE_FACTS
from bench.records import load_runs
from bench.tables import render
from bench.tables.blocks import stale
from bench.tables.layouts import build, tables
from benchmarks.transfer import block
from tests.bench.runs import make_run

ROOT = Path(__file__).parents[3]

GOOD, BAD = [100.0] * 8 + [0.0] * 2, [100.0] * 3 + [0.0] * 7


def run(folder, name, scores, steps=("untargeted",), **header):
    kind = {"noise": "noise"}.get(name, "pgd")
    recorded = [{"name": f"s{k}", "kind": kind, "steps": 1, "goal": goal} for k, goal in enumerate(steps)]
    return make_run(folder / name, {0: GOOD, 4: scores}, attack=name, attack_steps=recorded, **header)


def ensemble(*names):
    share = {name: 1 / len(names) for name in names}
    return {"surrogate": "+".join(names), "ensemble": share}


@pytest.fixture
def runs(tmp_path):
    return [
        run(tmp_path, "itself", [0.0] * 10),
        run(tmp_path, "noise", GOOD),
        run(tmp_path, "one", BAD, protocol={"surrogate": "clip"}),
        run(tmp_path, "several", BAD, protocol=ensemble("clip", "tecoa2")),
        run(tmp_path, "grey", BAD, protocol=ensemble("clip", "fare4")),
        run(tmp_path, "tokens", BAD, ["patch-tokens"], protocol={"surrogate": "fare4"}),
    ]


def test_every_source_has_its_row_with_the_floors_and_marks(runs):
    table = build("surrogates", runs, SUITE_FACTS)
    rows = [row[-1] for row in table.rows]
    assert rows[0] == "none (clean)"
    assert rows.index("random noise") < rows.index("itself") < rows.index("clip") < rows.index("clip+tecoa2")
    values = {row[-1]: cell.measure.estimate.value for (row, _), cell in table.cells.items()}
    assert values == {
        "none (clean)": 80.0, "random noise": 80.0, "itself": 0.0, "clip": 30.0, "clip+tecoa2": 30.0,
        "clip+fare4": 30.0, "fare4": 30.0,
    }  # fmt: skip
    assert {row[-1] for (row, _), cell in table.cells.items() if cell.grey} == {"clip+fare4", "fare4"}
    assert "^" in render.text(table)


def test_only_the_victims_that_are_attacked_stand_beside(runs, tmp_path):
    stranger = make_run(tmp_path / "x", {0: GOOD, 4: BAD}, encoder="clip", attack="itself")
    (shown,) = build("surrogates", [*runs, stranger], SUITE_FACTS).columns
    assert shown[0].split()[-1] == "fare4"


def test_shares_of_images_are_those_of_the_publication(tmp_path):
    scores = {0: [0.0] * 4, 16: [100.0, 50.0, 25.0, 20.0]}
    judged = make_run(
        tmp_path / "k", scores, task="keywords", dataset="mini-pairs", worst="max", metric="keywords matched (%)",
        protocol={"judge": "words"}, attack="m-attack",
    )  # fmt: skip
    assert [found.name for found in tables([judged], SUITE_FACTS)] == ["flat", "targets"]
    table = build("targets", [judged], SUITE_FACTS)
    led = {column[-1]: c.measure.estimate.value for (row, column), c in table.cells.items() if "16/255" in row}
    assert led == {"mean": 48.75, "from 25 on (%)": 75.0, "from 50 on (%)": 50.0, "from 100 on (%)": 25.0}
    assert all(c.measure.lower_is_better for c in table.cells.values())


def test_the_committed_rows_are_what_their_records_say():
    assert not stale(ROOT / "BENCHMARKS.md", "surrogates", block(ROOT / "results" / "transfer"))
    runs = load_runs([ROOT / "results" / "transfer"])
    assert {run.header.suite for run in runs} == {"mini-transfer"}
    assert not [record for run in runs for record in run.records if record.error]
