"""Layouts from outside: one of an installed package, and broken ones."""

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from bench import registry
from bench.analysis.cells import measured
from bench.config.facts import SUITE_FACTS
from bench.errors import UsageError
from bench.registry import LAYOUTS
from bench.tables import layouts
from bench.tables.table import Layout
from tests.bench.runs import in_memory

ROOT = Path(__file__).parents[3]
MINI = str(ROOT / "results" / "mini")


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """The example plugin, really installed into a folder of its own."""
    target, source = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("source") / "plugin"
    shutil.copytree(ROOT / "tests" / "plugin", source)  # building leaves files beside the source
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target"]
    subprocess.run([*command, str(target), str(source)], check=True, capture_output=True)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(target), str(ROOT)])}


def test_a_layout_of_an_installed_package_is_listed_and_filled(environment):
    def bench(*words):
        command = [sys.executable, "-m", "bench", "table", *words]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    assert "by-dataset  a row per dataset and radius, a column per encoder\n" in bench("--list")
    undefended = ("--task", "zeroshot", "--where", "defence=none")
    shown = json.loads(bench("by-dataset", MINI, *undefended, "--format", "json"))
    assert shown["title"] == "By dataset"
    by_place = {(*c["row"].values(), *c["column"].values()): c["number"] for c in shown["cells"]}
    assert by_place["mini-shape", "4/255", "fare4"]["value"] == pytest.approx(36.2, abs=0.05)
    assert "## By dataset" in bench("--all", MINI, "--format", "markdown")


def _raise(runs, facts):
    raise KeyError("a key")


FAILING = Layout("t", "a", _raise, ("encoder",), ("radius",))
MISSPELT = Layout("t", "a", lambda runs, facts: measured(runs), ("encoder",), ("raduis",))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("no_such_module:layout", "cannot be imported"),
        ("json:dumps", "is a function, not a bench.tables.table.Layout"),
        (f"{__name__}:FAILING", "failed: KeyError: 'a key'"),
        (f"{__name__}:MISSPELT", "failed: KeyError: 'raduis'"),
    ],
)
def test_a_broken_layout_is_named_and_the_others_go_on(monkeypatch, value, said):
    own = {"theirs": EntryPoint("theirs", value, layouts.GROUP)}
    monkeypatch.setattr(registry, "plugins", lambda group: own if group == layouts.GROUP else {})
    runs = [in_memory({0: [100.0], 4: [0.0]})]
    with pytest.raises(UsageError, match="'theirs'.*" + said):
        layouts.build("theirs", runs, SUITE_FACTS)
    assert layouts.abouts().keys() == {*LAYOUTS, "theirs"}
    problems = []
    assert [t.name for t in layouts.tables(runs, SUITE_FACTS, problems=problems)] == ["flat", "robustness"]
    (problem,) = problems
    assert "theirs" in problem
    assert said in problem
