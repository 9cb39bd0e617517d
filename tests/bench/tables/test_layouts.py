"""Layouts filled from made-up runs, in every style."""

import csv
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bench.analysis import published
from bench.config import load_suite
from bench.errors import UsageError
from bench.records import load_run, load_runs, open_run
from bench.tables import layouts, render
from bench.tables.layouts import BANNER, build
from tests.bench.runs import in_memory, make_header, make_record, make_run

ROOT = Path(__file__).parents[3]
GOOD, BAD = [100.0] * 8 + [0.0] * 2, [100.0] * 2 + [0.0] * 8
TARGETS = ("a sketch of a star", "a black bar")  # of the mini suite


def _vlm(place, encoder, scores, dataset="mini-vqa", **changes):
    return make_run(place / f"{encoder}-{dataset}", scores, encoder=encoder, dataset=dataset, **changes)


@pytest.fixture
def vision(tmp_path):
    """Two encoders on VQA, one of them on captions too."""
    return [
        _vlm(tmp_path, "fare4", {0: GOOD, 2: GOOD, 4: BAD}),
        _vlm(tmp_path, "clip", {0: GOOD, 2: BAD, 4: BAD}),
        _vlm(tmp_path, "clip", {0: GOOD, 4: BAD}, dataset="mini-caption", task="captioning", metric="CIDEr"),
    ]


def _stealth(place, encoder, said: dict[float, list[str]]):
    """Samples s0, s1, ... have the suite's targets in turn; `said` holds what each said at a radius."""
    records = [
        make_record(f"s{i}", "apgd" if eps else "clean", eps, 100.0 * (TARGETS[i % 2] in text), prediction=text,
                    group=f"g{i}")
        for eps, texts in said.items() for i, text in enumerate(texts)
    ]  # fmt: skip
    header = make_header(encoder=encoder, task="stealth", dataset="mini-stealth", worst="max", radii=(4.0,),
                         metric="attack success rate (%)", n_samples=len(said[0.0]))  # fmt: skip
    with open_run(place, header) as store:
        store.append(records)
        store.finish("complete")
    return load_run(place)


# ---- filling ---------------------------------------------------------------------------------------------


def test_robustness_is_encoder_by_dataset_by_radius(vision):
    table = build("robustness", vision)
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
    partial = _vlm(tmp_path, "x", {0: [100.0] * 10, 2: [100.0] * 10, 4: GOOD}, limit=10)
    table = build("robustness", [*vision, partial])
    best = {(row[0], column) for (row, column), cell in table.cells.items() if cell.best}
    both = {(encoder, ("mini-vqa", radius)) for encoder in ("clip", "fare4") for radius in ("clean", "4/255")}
    assert best == both | {("fare4", ("mini-vqa", "2/255"))}  # ties are both best; the only caption run has no rival


def test_zeroshot_has_a_column_a_dataset_and_the_average_last(tmp_path):
    runs = [
        make_run(tmp_path / f"{e}-{d}", {0: GOOD[:n], 4: BAD[:n]}, encoder=e, task="zeroshot", dataset=d, model=None)
        for e in ("fare4", "clip")
        for d, n in (("shape", 10), ("colour", 5))
    ]
    table = build("zeroshot", runs)
    assert table.columns == (("shape",), ("colour",), ("average",))
    assert table.rows == (("clean", "clip"), ("clean", "fare4"), ("4/255", "clip"), ("4/255", "fare4"))
    average = table.cells[("4/255", "clip"), ("average",)]
    assert average.measure.estimate.value == pytest.approx((20 + 40) / 2)
    assert set(average.measure.directories) == {runs[2].directory, runs[3].directory}


def test_targets_are_told_apart_and_lower_is_better(tmp_path):
    clean = ["a red bar"] * 4
    runs = [
        _stealth(tmp_path / "clip", "clip", {0.0: clean, 4.0: [TARGETS[0], TARGETS[1], TARGETS[0], "a red bar"]}),
        _stealth(tmp_path / "fare4", "fare4", {0.0: clean, 4.0: [TARGETS[0], "no", "no", "no"]}),
    ]
    table = build("targeted", runs)
    assert table.columns == ((TARGETS[0],), (TARGETS[1],), ("all targets",))
    at = {(row, column[0]): cell for (row, column), cell in table.cells.items()}
    values = {key: cell.measure.estimate.value for key, cell in at.items()}
    assert values[("4/255", "clip"), TARGETS[0]] == 100
    assert values[("4/255", "clip"), TARGETS[1]] == 50
    assert values[("4/255", "clip"), "all targets"] == 75
    assert values[("4/255", "fare4"), "all targets"] == 25
    assert at[("4/255", "fare4"), TARGETS[1]].best
    assert not at[("4/255", "clip"), TARGETS[1]].best


def test_records_that_contradict_the_suites_targets_are_refused(tmp_path):
    run = _stealth(tmp_path, "clip", {0.0: ["no"] * 2, 4.0: [TARGETS[0], "no"]})
    swapped = [r if r.score == 0 else make_record("s1", "apgd", 4.0, 100.0, prediction=r.prediction)
               for r in run.records]  # fmt: skip
    with pytest.raises(UsageError, match=r"'s1'.*a black bar"):
        build("targeted", [type(run)(run.directory, run.header, swapped)])


def test_transfers_stand_beside_white_box_attacks(vision, tmp_path):
    protocol = {"precision": "float32", "surrogate": "clip"}
    moved = _vlm(tmp_path / "t", "fare4", {0: GOOD, 4: GOOD}, attack="apgd-from-clip", protocol=protocol)
    table = build("transfer", [*vision, moved])
    assert table.columns == (("itself",), ("clip",))
    values = {key: cell.measure.estimate.value for key, cell in table.cells.items()}
    assert values[("mini-vqa", "4/255", "fare4"), ("clip",)] == 80
    assert values[("mini-vqa", "4/255", "fare4"), ("itself",)] == 20
    assert ("robustness" in layouts.available([moved])) is False


def test_runs_of_different_protocols_or_norms_share_no_table(vision, tmp_path):
    paper = _vlm(tmp_path / "p", "tecoa4", {0: GOOD}, protocol={"precision": "fp16", "name": "paper"})
    with pytest.raises(UsageError, match=r"protocols.*fare4-mini-vqa \(protocol 'strict'\).*\(protocol 'paper'\)"):
        build("robustness", [*vision, paper])
    named = _vlm(tmp_path / "n", "tecoa4", {0: GOOD}, protocol={"name": "strict"})
    build("robustness", [*vision, named])
    l2 = _vlm(tmp_path / "l", "tecoa4", {0: GOOD, 0.5: GOOD}, norm="l2")
    with pytest.raises(UsageError, match="norms"):
        build("flat", [*vision, l2])
    assert ("0.5 (l2)",) in build("flat", [l2]).columns


def test_two_runs_for_one_cell_and_an_empty_layout_are_refused(vision, tmp_path):
    again = _vlm(tmp_path / "again", "clip", {0: GOOD}, seed=1)
    with pytest.raises(UsageError, match=r"two runs for one cell, choose one: .*clip-mini-vqa and .*again"):
        build("robustness", [*vision, again])
    with pytest.raises(UsageError, match="no run has results for layout 'targeted'"):
        build("targeted", vision)
    with pytest.raises(UsageError, match="did you mean 'robustness'"):
        build("robustnes", vision)


# ---- published numbers -----------------------------------------------------------------------------------


def _paper(place, task, dataset, value, model=None, eps=2.0, **changes):
    scores = {0: [value] * 10, eps: [value] * 10}
    return make_run(place / dataset, scores, suite="paper", encoder="fare4", task=task, dataset=dataset, model=model,
                    metric="CIDEr", **changes)  # fmt: skip


def test_published_numbers_stand_beside_ours_with_the_difference(tmp_path):
    run = _paper(tmp_path, "captioning", "coco", 60.0, "llava-hf/llava-1.5-7b-hf")
    table = build("robustness", [run])
    cell = table.cells[("fare4",), ("coco", "2/255")]
    assert (cell.published, cell.difference) == (57.1, pytest.approx(2.9))  # README of RobustVLM, FARE4, LLaVA, COCO
    assert table.cells[("fare4",), ("coco", "clean")].published == 102.4
    assert "{57.1, +2.9}" in render.text(table)
    assert "paper 57.1, +2.9" in render.html(table)
    assert "(57.1, $+2.9$)" in render.latex(table)
    (_, line) = list(csv.DictReader(io.StringIO(render.as_csv(table))))
    assert (float(line["published"]), float(line["difference"])) == (57.1, pytest.approx(2.9))


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("llava-hf/llava-1.5-13b-hf", {}),
        ("llava-hf/llava-1.5-7b-hf", {"suite": "mini"}),
        ("llava-hf/llava-1.5-7b-hf", {"encoder": "fare5"}),
        ("llava-hf/llava-1.5-7b-hf", {"norm": "l2"}),
        ("llava-hf/llava-1.5-7b-hf", {"protocol": {"surrogate": "clip"}}),
        ("llava-hf/llava-1.5-7b-hf", {"radii": (3.0,)}),
    ],
)
def test_a_number_of_something_else_is_not_put_beside_ours(tmp_path, model, changes):
    run = _paper(tmp_path, "captioning", "coco", 60.0, model, eps=changes.pop("radii", (2.0,))[0])
    header = replace(run.header, **changes)
    (_, attacked) = layouts.measured([type(run)(run.directory, header, run.records)])
    assert published.published(attacked) is None


def test_the_published_average_is_over_thirteen_sets(tmp_path):
    runs = [_paper(tmp_path, "zeroshot", f"set{i}", 50.0) for i in range(13)]
    assert build("zeroshot", runs).cells[("2/255", "fare4"), ("average",)].published == 45.9
    assert build("zeroshot", runs[1:]).cells[("2/255", "fare4"), ("average",)].published is None


def test_every_published_row_is_of_an_encoder_that_the_catalogue_has():
    """And its zero-shot averages are those of the catalogue's row."""
    from bench.models.encoders import catalogue

    rows, found = catalogue.rows("paper"), published.numbers()
    assert {key[0] for key in found} <= rows.keys()
    averages = {(key[0], key[4]): value for key, value in found.items() if key[1] == "zeroshot"}
    anchors = {(n, float(eps)): v for n, row in rows.items() for eps, v in row.zero_shot.items()}
    assert averages == anchors


def test_imagenet_is_no_part_of_the_published_average(tmp_path):
    runs = [_paper(tmp_path, "zeroshot", name, 50.0) for name in load_suite("paper").tasks["zeroshot"].datasets]
    runs.append(_paper(tmp_path, "zeroshot", "imagenet", 0.0))
    table = build("zeroshot", runs)
    average = table.cells[("2/255", "fare4"), ("average",)]
    assert (average.measure.estimate.value, average.published) == (50.0, 45.9)
    assert ("imagenet",) in table.columns


def test_the_papers_targets_are_known(tmp_path):
    texts = [target["text"] for target in load_suite("paper").datasets["coco-stealth"]["targets"]]
    run = make_run(tmp_path, {0: [0.0] * 12}, suite="paper", task="stealth", dataset="coco-stealth", worst="max")
    table = build("targeted", [run])
    assert table.columns == (*((text,) for text in texts), ("all targets",))
    assert {cell.measure.estimate.n for (_, column), cell in table.cells.items() if column[0] in texts} == {2}


def test_every_published_number_names_its_source():
    with published.FILE.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 115
    assert {row["source"] for row in rows} == {"github.com/chs20/RobustVLM README.md"}
    assert len(published.numbers()) == len(rows)


# ---- styles ----------------------------------------------------------------------------------------------


class _Cells(HTMLParser):
    """The text of every cell of a table, row by row; fails on tags that are not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def _numbers_in(text):
    return re.findall(r"-?\d+\.\d(?!\d)", text)


def test_every_style_has_every_number(vision):
    table = build("robustness", vision)
    wanted = [
        f"{value:.1f}"
        for row in table.rows
        for column in table.columns
        if (cell := table.cells.get((row, column)))
        for value in (cell.measure.estimate.value, cell.measure.estimate.low, cell.measure.estimate.high)
    ]
    assert _numbers_in(render.text(table)) == wanted
    assert _numbers_in(render.markdown(table)) == wanted
    assert _numbers_in(render.latex(table)) == wanted
    parser = _Cells()
    parser.feed(render.html(table))
    assert parser.open == []
    assert _numbers_in(" ".join(cell for row in parser.rows for cell in row)) == wanted
    data = json.loads(render.as_json(table))
    assert [f"{c['number']['value']:.1f}" for c in data["cells"] if c["number"]] == wanted[::3]
    assert sum(c["number"] is None for c in data["cells"]) == 2
    lines = list(csv.DictReader(io.StringIO(render.as_csv(table))))
    assert [f"{float(line['value']):.1f}" for line in lines] == wanted[::3]
    assert {line["runs"] for line in lines} == {str(run.directory) for run in vision}


def test_the_best_are_bold_where_a_style_can(vision):
    table = build("robustness", vision)
    best = sum(cell.best for cell in table.cells.values())
    assert best == 5
    assert render.markdown(table).count("**") == 2 * best
    assert render.latex(table).count(r"\textbf{") == best
    assert render.html(table).count("<strong>") == best


def test_columns_of_a_latex_table_agree_with_its_head(vision):
    for table in (build("robustness", vision), build("flat", vision)):
        lines = render.latex(table).splitlines()
        width = len(re.search(r"\{([lc]+)\}$", next(line for line in lines if "begin{tabular}" in line))[1])
        for line in (line for line in lines if line.endswith(r"\\")):
            spans = sum(int(n) - 1 for n in re.findall(r"multicolumn\{(\d+)\}", line))
            assert line.count(" & ") + 1 + spans == width, line


@pytest.mark.parametrize("style", ["markdown", "latex", "html"])
def test_names_cannot_break_out(tmp_path, style):
    run = make_run(tmp_path, {0: GOOD}, encoder=r"a|b_c & <script>alert(1)</script> 50%")
    shown = render.render(build("flat", [run]), style)
    assert "<script>" not in shown
    if style == "latex":
        assert r"a|b\_c \&" in shown
        assert r"50\%" in shown
    if style == "markdown":
        assert r"a\|b_c" in shown


def test_sample_counts_are_said_once(vision, tmp_path):
    assert "n = 10 everywhere" in render.text(build("robustness", vision))
    other = _vlm(tmp_path, "clip", {0: GOOD[:5], 4: BAD[:5]}, dataset="small")
    assert "small clean (n = 5)" in render.text(build("robustness", [*vision, other]))
    ragged = _vlm(tmp_path, "tecoa2", {0: GOOD[:4], 2: BAD[:4], 4: BAD[:4]})
    lines = render.text(build("robustness", [*vision, ragged])).splitlines()
    assert lines[0].endswith(" n")
    assert {line.split()[-1] for line in lines[2:5]} == {"10", "4"}


def test_a_partial_number_is_marked(vision, tmp_path):
    partial = _vlm(tmp_path, "x", {0: GOOD}, limit=10)
    table = build("flat", [vision[0], partial])
    for style in ("text", "markdown", "html", "latex", "json"):
        assert BANNER in render.render(table, style)
    assert render.markdown(table).count("]*") == 1
    assert BANNER not in render.text(build("flat", vision))


def test_the_committed_results_fill_every_layout():
    runs = load_runs([ROOT / "results" / "mini"])
    assert layouts.available(runs) == list(layouts.LAYOUTS)
    for table in layouts.tables(runs):
        assert table.banner is None
        assert all(cell.published is None for cell in table.cells.values())


def test_a_failed_check_stands_under_the_table():
    doubt = {"name": "plain_clip_is_broken", "ok": False, "detail": "at 4/255 plain CLIP keeps 90 %"}
    table = layouts.build("robustness", [in_memory({0: [100], 4: [100]}, encoder="clip", checks=[doubt])])
    assert "Not credible: these checks failed: plain_clip_is_broken (clip, mini-vqa)." in render.markdown(table)
