"""``bench table`` as a user types it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.cli import main
from bench.records import open_run
from bench.registry import LAYOUTS
from bench.regression.baseline import DOCUMENT
from bench.tables import layouts
from tests.bench.runs import make_header, make_record, make_run

ROOT = Path(__file__).parents[3]
MINI = str(ROOT / "results" / "mini")


def _table(*words):
    return CliRunner().invoke(main, ["table", *words])


def test_layouts_are_listed():
    lines = _table("--list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(LAYOUTS)
    assert _table().stdout.splitlines() == lines


def test_the_first_word_may_name_a_layout():
    shown = json.loads(_table("targeted", MINI, "--format", "json").stdout)
    assert shown["layout"] == "targeted"
    assert json.loads(_table(MINI, "--format", "json").stdout)["layout"] == "flat"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["robustnes", MINI], "did you mean 'robustness'"),
        (["robustness", "/no/such/runs"], "/no/such/runs"),
        (["/no/such/runs"], "/no/such/runs"),
        ([MINI, "--format", "pdf"], "latex"),
        ([MINI, "--where", "seed"], "--where takes KEY=VALUE"),
        ([MINI, "--where", "sed=0"], "did you mean 'seed'"),
        ([MINI, "--encoder", "tecoa9"], "there are: clip"),
    ],
)
def test_a_mistake_is_named(words, message):
    result = _table(*words)
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output


def test_all_layouts_regenerate_the_committed_document(tmp_path):
    document = tmp_path / "B.md"
    fresh = (ROOT / DOCUMENT).read_text()
    document.write_text(fresh.replace("27.1 [23.5, 30.7]", "99.9 [99.0, 100.0]"))
    assert document.read_text() != fresh
    result = _table("--all", MINI, "--write", str(document))
    assert result.exit_code == 0, result.output
    assert document.read_text() == fresh
    shown = _table("--all", MINI, "--format", "markdown").stdout
    titles = [layouts.find(name).title for name in LAYOUTS]
    filled = [title for title in titles if f"## {title}\n" in shown]
    assert shown.count("\n## ") + 1 == len(filled) >= 5


def test_runs_are_chosen_by_what_they_are():
    shown = json.loads(_table("flat", MINI, "--encoder", "fare*", "--task", "vqa", "--format", "json").stdout)
    assert {cell["row"]["encoder"] for cell in shown["cells"]} == {"fare2", "fare4"}
    assert {cell["row"]["task"] for cell in shown["cells"]} == {"vqa"}
    shown = _table("flat", MINI, "--where", "surrogate=clip").stdout
    assert "84.8 [" in shown
    assert "captioning" not in shown


def test_runs_of_two_protocols_are_shown_apart(tmp_path):
    for name, value in (("strict", 25.0), ("paper", 75.0)):
        make_run(tmp_path / name, {0: [100.0] * 4, 4: [value] * 4}, protocol={"name": name})
    shown = _table(str(tmp_path))
    assert shown.exit_code == 0
    strict, paper = shown.stdout.split("All results, protocol strict, linf\n")[0], shown.stdout
    assert paper.index("All results, protocol paper, linf") < paper.index("All results, protocol strict, linf")
    assert "75.0 [" in strict
    assert "25.0 [" not in strict
    data = json.loads(_table(str(tmp_path), "--format", "json").stdout)
    assert [len(one["cells"]) for one in data] == [2, 2]
    chosen = json.loads(_table(str(tmp_path), "--where", "protocol=paper", "--format", "json").stdout)
    assert [cell["number"]["value"] for cell in chosen["cells"]] == [100.0, 75.0]


def test_a_run_that_is_named_twice_is_one_run(tmp_path):
    """As it, as a folder above it, and by a link to that."""
    run = make_run(tmp_path / "runs" / "a", {0: [100.0, 0.0], 4: [0.0, 0.0]}).directory
    (tmp_path / "link").symlink_to(tmp_path / "runs")
    ways = [run, tmp_path / "runs", tmp_path / "link", tmp_path / "runs" / ".." / "runs"]
    one, many = (CliRunner().invoke(main, ["table", *map(str, places)]) for places in (ways[:1], ways))
    assert many.output == one.output
    gate = CliRunner().invoke(main, ["check", "--baseline", str(run), *(w for p in ways for w in ("--runs", str(p)))])
    assert "two runs" not in gate.output


def test_a_partial_run_beside_a_whole_one_does_not_block(tmp_path):
    make_run(tmp_path / "whole", {0: [100.0] * 4, 4: [25.0] * 4})
    make_run(tmp_path / "part", {0: [100.0] * 2, 4: [50.0] * 2}, limit=2)
    shown = _table(str(tmp_path))
    assert (shown.exit_code, "25.0 [" in shown.stdout, "50.0 [" in shown.stdout) == (0, True, False)
    assert f"Left out, since a whole run has the same numbers: {tmp_path / 'part'}" in shown.stdout
    shown = _table(str(tmp_path), "--where", "limit=2")
    assert "50.0 [" in shown.stdout


def test_a_new_document_is_written_and_then_kept_up_to_date(tmp_path):
    make_run(tmp_path / "run", {0: [100.0] * 4, 4: [25.0] * 4}, suite="my-own")
    document = tmp_path / "docs" / "NEW.md"
    result = _table(str(tmp_path / "run"), "--write", str(document))
    assert result.exit_code == 0, result.output
    first = document.read_text()
    assert "<!-- bench:vqa -->\n| encoder | mini-vqa clean" in first
    assert "bench:claims" not in first  # they are the mini suite's
    document.write_text(first.replace("25.0", "99.0"))
    assert _table(str(tmp_path / "run"), "--write", str(document)).exit_code == 0
    assert document.read_text() == first


def test_partial_runs_enter_no_document(tmp_path):
    make_run(tmp_path / "run", {0: [100.0] * 4, 4: [25.0] * 4}, limit=4)
    result = _table(str(tmp_path / "run"), "--write", str(tmp_path / "NEW.md"))
    assert (result.exit_code, "only whole runs" in result.output) == (2, True)
    assert not (tmp_path / "NEW.md").exists()


def test_cider_of_one_image_is_no_number(tmp_path):
    changes = {"task": "captioning", "metric": "CIDEr", "dataset": "coco"}
    make_run(tmp_path / "one", {0: [0.0], 4: [0.0]}, limit=1, **changes)
    alone = _table(str(tmp_path / "one"))
    assert alone.exit_code == 2
    assert "CIDEr weighs words by how many images have them" in alone.output
    make_run(tmp_path / "two", {0: [50.0, 70.0], 4: [0.0, 10.0]}, **changes)
    both = _table(str(tmp_path))
    assert both.exit_code == 0
    assert "60.0 [" in both.stdout
    assert f"No number of {tmp_path / 'one'}: CIDEr weighs words" in both.stdout
    assert len(both.stdout.splitlines()) == 5  # head, rule, one line of numbers, notes


@pytest.mark.parametrize("words", [[], ["--all"]])
def test_a_run_without_a_score_is_named(tmp_path, words):
    with open_run(tmp_path / "failed", make_header(encoder="x")) as store:
        store.append([make_record(score=None, error="out of memory")])
    alone = _table(*words, str(tmp_path))
    assert alone.exit_code == 2
    assert f"{tmp_path / 'failed'}: no sample has a score; the first error: out of memory" in alone.output
    make_run(tmp_path / "fine", {0: [100.0] * 4})
    both = _table(*words, str(tmp_path))
    assert both.exit_code == 0
    assert f"No number of {tmp_path / 'failed'}: no sample has a score" in both.stdout


@pytest.mark.parametrize("words", [["table", "--all", MINI], ["table", "targeted", MINI, "--format", "html"]])
def test_tables_never_import_torch(words):
    code = (
        f"import sys\nfrom bench.cli import main\ntry: main({words!r})\nexcept SystemExit as e: assert not e.code\n"
        "assert 'torch' not in sys.modules and 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
