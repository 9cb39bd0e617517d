"""The examples run as they stand, and print what they promise."""

import importlib.util
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(path.stem for path in EXAMPLES.glob("*.py"))


def _load(name: str):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_example_is_forgotten():
    assert SCRIPTS == ["attack_a_classifier", "evaluate_encoders", "own_encoder"]
    assert [path.name for path in EXAMPLES.glob("*.ipynb")] == ["tour.ipynb"]


def test_attacking_a_classifier(capsys):
    assert _load("attack_a_classifier").main() < 0.5
    assert "2.00/255" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "words"),
    [("evaluate_encoders", ["clip", "fare4", "mini-shape"]), ("own_encoder", ["zeroshot", "vqa"])],
)
def test_evaluating(name, words, tmp_path, capsys):
    _load(name).main(tmp_path, limit=6)
    printed = capsys.readouterr().out
    assert all(word in printed for word in words)
    if name == "evaluate_encoders":
        assert (tmp_path / "robustness.png").read_bytes().startswith(b"\x89PNG")


def test_the_notebook_runs_from_top_to_bottom(tmp_path):
    """On fewer questions than it asks."""
    notebook = nbformat.read(EXAMPLES / "tour.ipynb", as_version=4)
    (asking,) = (cell for cell in notebook.cells if "limit = 20" in cell.source)
    asking.source = asking.source.replace("limit = 20", "limit = 6")
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in shown) == 2  # the plot and the adversarial image
