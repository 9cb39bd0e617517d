"""Published numbers beside ours."""

import csv
import io
import tomllib
from dataclasses import replace
from fnmatch import fnmatch
from importlib import resources
from pathlib import Path

import pytest

from bench.analysis.cells import measured
from bench.analysis.published import Published, numbers, published
from bench.config import load_suite
from bench.config.facts import SUITE_FACTS
from bench.tables import render
from bench.tables.layouts import build
from tests.bench.runs import make_run

ROOT = Path(__file__).parents[3]
LLAVA = "llava-hf/llava-1.5-7b-hf"
PAPER = {"name": "paper", "precision": "fp16", "half_verdicts": True}


def _paper(place, task, dataset, value, model=None, eps=2.0, n=10, **changes):
    scores = {0: [value] * n, eps: [value] * n}
    fields = {"suite": "paper", "encoder": "fare4", "task": task, "dataset": dataset, "model": model, "metric": "CIDEr"}
    return make_run(place / dataset, scores, **fields | changes)


def test_published_numbers_stand_beside_ours_with_the_difference(tmp_path):
    run = _paper(tmp_path, "captioning", "coco", 60.0, LLAVA, n=500, protocol=PAPER)
    table = build("robustness", [run], SUITE_FACTS)
    cell = table.cells[("fare4",), ("coco", "2/255")]
    assert cell.published == Published(57.1)  # README of RobustVLM, FARE4, LLaVA, COCO
    assert cell.difference == pytest.approx(2.9)
    assert table.cells[("fare4",), ("coco", "clean")].published.value == 102.4
    assert "{57.1, +2.9}" in render.text(table)
    assert "paper 57.1, +2.9<" in render.html(table)
    assert "(57.1, $+2.9$)" in render.latex(table)
    (_, line) = list(csv.DictReader(io.StringIO(render.as_csv(table))))
    assert (float(line["published"]), float(line["difference"])) == (57.1, pytest.approx(2.9))
    assert line["published_differs"] == ""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"protocol": {"precision": "fp16"}}, "protocol strict, published paper"),
        ({"protocol": {"name": "paper", "precision": "float32"}}, "precision float32, published fp16"),
        ({"n": 400}, "n 400, published 500"),
        ({"attack": "apgd"}, "attack apgd, published ensemble"),
        ({"protocol": {**PAPER, "tower": "native"}}, "tower native, published encoder"),
    ],
    ids=str,
)
def test_what_was_measured_otherwise_is_marked_and_said(tmp_path, changes, said):
    run = _paper(tmp_path, "captioning", "coco", 60.0, LLAVA, **{"n": 500, "protocol": PAPER} | changes)
    (_, attacked) = measured([run])
    assert published(attacked) == Published(57.1, (said,))
    table = build("robustness", [run], SUITE_FACTS)
    for style, marked in (("text", "{57.1, +2.9~}"), ("html", "paper 57.1, +2.9~<"), ("latex", r"$+2.9^{\sim}$")):
        shown = render.render(table, style)
        assert marked in shown
        assert said in shown
    assert said in render.as_json(table)
    assert said in render.as_csv(table)


def test_a_clean_number_of_a_part_is_not_that_of_the_whole_test_set(tmp_path):
    run = _paper(tmp_path, "captioning", "coco", 60.0, LLAVA, n=500, protocol=PAPER)
    (clean, _) = measured([run])
    assert published(clean) == Published(102.4, ("n 500, published 5000",))


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("llava-hf/llava-1.5-13b-hf", {}),
        (LLAVA, {"suite": "mini"}),
        (LLAVA, {"encoder": "fare5"}),
        (LLAVA, {"norm": "l2"}),
        (LLAVA, {"protocol": {**PAPER, "surrogate": "clip"}}),
        (LLAVA, {"radii": (3.0,)}),
    ],
)
def test_a_number_of_something_else_is_not_put_beside_ours(tmp_path, model, changes):
    run = _paper(tmp_path, "captioning", "coco", 60.0, model, eps=changes.pop("radii", (2.0,))[0])
    header = replace(run.header, **changes)
    (_, attacked) = measured([type(run)(run.directory, header, run.records)])
    assert published(attacked) is None


def test_the_published_average_is_over_thirteen_sets(tmp_path):
    runs = [_paper(tmp_path, "zeroshot", f"set{i}", 50.0) for i in range(13)]
    assert build("zeroshot", runs, SUITE_FACTS).cells[("2/255", "fare4"), ("average",)].published.value == 45.9
    assert build("zeroshot", runs[1:], SUITE_FACTS).cells[("2/255", "fare4"), ("average",)].published is None


def test_every_published_row_is_of_an_encoder_that_the_catalogue_has():
    """And its zero-shot averages are those of the catalogue's row."""
    from bench.models.encoders import catalogue

    rows, found = catalogue.rows("paper"), numbers()
    assert {key[0] for key in found} <= rows.keys()
    averages = {(key[0], key[4]): value for key, value in found.items() if key[1] == "zeroshot"}
    anchors = {(n, float(eps)): v for n, row in rows.items() for eps, v in row.zero_shot.items()}
    assert averages == anchors


def test_imagenet_is_no_part_of_the_published_average(tmp_path):
    runs = [_paper(tmp_path, "zeroshot", name, 50.0) for name in load_suite("paper").tasks["zeroshot"].datasets]
    runs.append(_paper(tmp_path, "zeroshot", "imagenet", 0.0))
    table = build("zeroshot", runs, SUITE_FACTS)
    average = table.cells[("2/255", "fare4"), ("average",)]
    assert (average.measure.estimate.value, average.published.value) == (50.0, 45.9)
    assert ("imagenet",) in table.columns


def test_the_published_numbers_are_part_of_the_package_and_name_their_source():
    text = resources.files("bench.analysis").joinpath("published.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    assert len(rows) == 115
    assert {row["source"] for row in rows} == {"github.com/chs20/RobustVLM README.md"}
    assert len(numbers()) == len(rows)
    packed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["bench"]
    assert any(fnmatch("analysis/published.csv", pattern) for pattern in packed)
