"""Tables in every style."""

import csv
import io
import json
import re
import unicodedata
from html.parser import HTMLParser

import pytest

from bench.config.facts import SUITE_FACTS
from bench.tables import render
from bench.tables.layouts import build
from bench.tables.render import STYLES
from bench.tables.table import BANNER
from tests.bench.runs import in_memory
from tests.bench.tables.made import BAD, GOOD, vlm_run


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
    table = build("robustness", vision, SUITE_FACTS)
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
    table = build("robustness", vision, SUITE_FACTS)
    best = sum(cell.best for cell in table.cells.values())
    assert best == 5
    assert render.markdown(table).count("**") == 2 * best
    assert render.latex(table).count(r"\textbf{") == best
    assert render.html(table).count("<strong>") == best


def test_columns_of_a_latex_table_agree_with_its_head(vision):
    for table in (build("robustness", vision, SUITE_FACTS), build("flat", vision, SUITE_FACTS)):
        lines = render.latex(table).splitlines()
        width = len(re.search(r"\{([lc]+)\}$", next(line for line in lines if "begin{tabular}" in line))[1])
        for line in (line for line in lines if line.endswith(r"\\")):
            spans = sum(int(n) - 1 for n in re.findall(r"multicolumn\{(\d+)\}", line))
            assert line.count(" & ") + 1 + spans == width, line


HOSTILE = "a|b_c & <script>alert(1)</script> 50%\n\\input{/etc/passwd}"


@pytest.mark.parametrize("style", ["markdown", "latex", "html", "text"])
def test_names_cannot_break_out(style):
    doubt = {"name": HOSTILE, "ok": False, "detail": ""}
    shown = render.render(build("flat", [in_memory({0: GOOD}, encoder=HOSTILE, checks=[doubt])], SUITE_FACTS), style)
    if style == "latex":  # a comment is not live, and ends with its line
        shown = "\n".join(line for line in shown.splitlines() if line[0] != "%")
    if style != "text":
        assert "<script>" not in shown
    if style == "latex":
        assert r"a|b\_c \&" in shown
        assert r"50\%" in shown
        assert "input{" not in shown
    if style == "markdown":
        assert r"a\|b\_c" in shown
    if style != "html":
        assert not [line for line in shown.splitlines() if line.startswith("\\input")]


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "  =1+1", "\t=1"])
def test_a_csv_cell_is_no_formula(name):
    table = build("flat", [in_memory({0: GOOD}, encoder=name, dataset=name)], SUITE_FACTS)
    (line,) = csv.DictReader(io.StringIO(render.as_csv(table)))
    assert line["encoder"][0] == "'"
    assert line["dataset"].lstrip("'") == line["encoder"].lstrip("'")
    assert float(line["value"]) == 80


@pytest.mark.parametrize("style", list(STYLES))
def test_no_style_lets_a_terminal_command_through(style):
    escape = "\x1b]8;;https://evil.example\x07click\x1b]8;;\x07\x9b2J\u202e"
    doubt = {"name": escape, "ok": False, "detail": ""}
    run = in_memory({0: GOOD}, encoder=escape, dataset=escape, name=escape, metric=escape, checks=[doubt])
    shown = render.render(build("flat", [run, in_memory({0: GOOD}, encoder="x", name=escape)], SUITE_FACTS), style)
    if style != "html":
        assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cf") and c != "\n"]


def test_markdown_holds_no_link_of_a_name():
    name = "[a](https://evil.example) ![b](x) <img src=x> www.evil.example $x$"
    shown = render.markdown(build("flat", [in_memory({0: GOOD}, encoder=name)], SUITE_FACTS))
    assert r"\[a\](https\://evil.example) !\[b\](x) &lt;img src=x&gt; www\.evil.example \$x\$" in shown


def test_sample_counts_are_said_once(vision, tmp_path):
    assert "n = 10 everywhere" in render.text(build("robustness", vision, SUITE_FACTS))
    other = vlm_run(tmp_path, "clip", {0: GOOD[:5], 4: BAD[:5]}, dataset="small")
    assert "small clean (n = 5)" in render.text(build("robustness", [*vision, other], SUITE_FACTS))
    ragged = vlm_run(tmp_path, "tecoa2", {0: GOOD[:4], 2: BAD[:4], 4: BAD[:4]})
    lines = render.text(build("robustness", [*vision, ragged], SUITE_FACTS)).splitlines()
    assert lines[0].endswith(" n")
    assert {line.split()[-1] for line in lines[2:5]} == {"10", "4"}


def test_a_partial_number_is_marked(vision, tmp_path):
    partial = vlm_run(tmp_path, "x", {0: GOOD}, limit=10)
    table = build("flat", [vision[0], partial], SUITE_FACTS)
    for style in ("text", "markdown", "html", "latex", "json"):
        assert BANNER in render.render(table, style)
    assert render.markdown(table).count("]*") == 1
    assert BANNER not in render.text(build("flat", vision, SUITE_FACTS))


def _doubted(**changes):
    doubt = {"name": "plain_clip_is_broken", "ok": False, "detail": "at 4/255 plain CLIP keeps 90 %"}
    return in_memory({0: [100], 4: [100]}, encoder="clip", checks=[doubt], **changes)


@pytest.mark.parametrize(
    ("style", "mark"),
    [
        ("text", "100.0 [20.7, 100.0]!"),
        ("markdown", "100.0 [20.7, 100.0]!"),
        ("latex", "100.0$^!$ "),
        ("html", "100.0! "),
        ("csv", "plain_clip_is_broken"),
        ("json", '"failed_checks": [\n     "plain_clip_is_broken"'),
    ],
)
def test_a_failed_sanity_check_stands_beside_the_number_in_every_style(style, mark):
    shown = render.render(build("robustness", [_doubted()], SUITE_FACTS), style)
    assert mark in shown
    if style != "csv":
        said = shown.replace("\\_", "_").replace("&#39;", "'")
        assert "!: not credible, these sanity checks failed: plain_clip_is_broken (clip, mini-vqa)." in said
    whole = render.render(build("robustness", [in_memory({0: [100], 4: [100]})], SUITE_FACTS), style)
    assert "!" not in whole


@pytest.mark.parametrize("style", list(STYLES))
def test_what_is_to_know_of_the_data_stands_under_the_numbers(style):
    note = "on this dataset it cannot exceed 66.7 %"
    shown = render.render(build("robustness", [in_memory({0: GOOD}, notes=(note,))], SUITE_FACTS), style)
    assert (note if style == "csv" else f"mini-vqa: {note}.") in shown
    assert "cannot exceed" not in render.render(build("robustness", [in_memory({0: GOOD})], SUITE_FACTS), style)


def test_an_average_over_a_doubtful_run_is_doubtful():
    runs = [
        in_memory({0: [100.0]}, encoder="clip", task="zeroshot", dataset="colour", model=None),
        _doubted(task="zeroshot", dataset="shape", model=None),
    ]
    table = build("zeroshot", runs, SUITE_FACTS)
    assert table.cells[("clean", "clip"), ("average",)].marks == "!"
