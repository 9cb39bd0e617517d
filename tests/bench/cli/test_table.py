"""``bench table`` as a user types it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.cli import main
from bench.registry import LAYOUTS
from bench.regression.baseline import DOCUMENT
from bench.tables import layouts

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
    titles = [layouts.find(name).title for name in LAYOUTS]
    assert all(f"## {title}\n" in _table("--all", MINI, "--format", "markdown").stdout for title in titles)


@pytest.mark.parametrize("words", [["table", "--all", MINI], ["table", "targeted", MINI, "--format", "html"]])
def test_tables_never_import_torch(words):
    code = (
        f"import sys\nfrom bench.cli import main\ntry: main({words!r})\nexcept SystemExit as e: assert not e.code\n"
        "assert 'torch' not in sys.modules and 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
