"""The manual builds without a warning, its offline commands run, and so does its tutorial."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.docs.pages import PAGES, ROOT, blocks

pytestmark = pytest.mark.docs
NEEDED = ("BENCHMARKS.md", "examples", "results/board", "results/mini")  # what the commands read of a checkout


@pytest.fixture
def checkout(tmp_path):
    """A folder as a reader of the manual has it before them."""
    for name in NEEDED:
        source, place = ROOT / name, tmp_path / name
        place.parent.mkdir(exist_ok=True)
        shutil.copytree(source, place) if source.is_dir() else shutil.copy(source, place)
    return tmp_path


def _environment() -> dict[str, str]:
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": programs, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


RUNNABLE = [page for page in PAGES if any(block.offline for block in blocks(page))]


@pytest.mark.parametrize("page", RUNNABLE, ids=[page.stem for page in RUNNABLE])
def test_the_offline_commands_of_a_page_run(page, checkout):
    script = "\n".join(["set -euo pipefail", *(block.text for block in blocks(page) if block.offline)])
    ended = subprocess.run(["bash", "-c", script], cwd=checkout, env=_environment(), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-4000:]


def test_the_tutorial_runs(checkout, monkeypatch):
    for name, value in _environment().items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(ROOT / "docs/tutorial.ipynb", as_version=4)
    settings = next(cell for cell in notebook.cells if "steps, limit = " in cell.source)
    settings.source = settings.source.replace("60, 40", "4, 6")
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(checkout)}}).execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "Error" not in printed
    assert (checkout / "tutorial/report/index.html").exists()


def test_the_manual_builds_without_a_warning(tmp_path):
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    ended = subprocess.run(words, cwd=ROOT, env=_environment(), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    page = (tmp_path / "site/reference/index.html").read_text(encoding="utf-8")
    assert "RunHeader" in page
    assert "worst_scores" in page
