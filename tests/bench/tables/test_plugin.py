"""Layouts from outside: one of an installed package, and broken ones."""

import json
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
from tests.commands import bench

ROOT = Path(__file__).parents[3]
MINI = str(ROOT / "results" / "mini")


def test_a_layout_of_an_installed_package_is_listed_and_filled(plugin):
    def table(*words):
        ended = bench("table", *words, path=[plugin])
        assert ended.poll() == 0, ended.stderr
        return ended.stdout

    assert "by-dataset  a row per dataset and radius, a column per encoder\n" in table("--list")
    undefended = ("--task", "zeroshot", "--where", "defence=none")
    shown = json.loads(table("by-dataset", MINI, *undefended, "--format", "json"))
    assert shown["title"] == "By dataset"
    by_place = {(*c["row"].values(), *c["column"].values()): c["number"] for c in shown["cells"]}
    assert by_place["mini-shape", "4/255", "fare4"]["value"] == pytest.approx(36.2, abs=0.05)
    assert "## By dataset" in table("--all", MINI, "--format", "markdown")


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
