"""Whatever a plugin puts behind a door: it is what the door asks for, or one line names it. Never a traceback."""

import string
from collections.abc import Callable
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import registry, sinks
from bench.cli import main
from bench.config import Request, preset, resolve
from bench.config.choices import check_judge
from bench.config.victims import asks_victims
from bench.data.readers import reader
from bench.errors import UsageError
from bench.models.defences.load import load_defence
from bench.models.encoders.load import load_encoder
from bench.models.judges import load_judge
from bench.models.victims.endpoint.place import parse as endpoint_place
from bench.models.victims.load import family
from bench.regression.baseline import blocks
from bench.regression.rerun import can_run_in_part
from bench.running.engines import execute_all
from bench.running.kinds import attack_kind
from bench.running.plugins import task_class
from bench.tables.layouts import find
from bench.train.objectives import load_objective
from bench.train.tables import open_table
from tests.bench.runs import in_memory

SOME, MANY = 10, 2000
DOORS: dict[str, Callable[[], object]] = {
    "bench.tasks": lambda: task_class("mine"),
    "bench.encoders": lambda: load_encoder("mine"),
    "bench.victims": lambda: family("mine"),
    "bench.attacks": lambda: preset("mine"),
    "bench.objectives": lambda: load_objective("mine"),
    "bench.attack_kinds": lambda: attack_kind("mine"),
    "bench.engines": lambda: execute_all([], on="mine"),
    "bench.sinks": lambda: sinks.check(["mine"]),
    "bench.defences": lambda: load_defence("mine"),
    "bench.claims": lambda: blocks([in_memory({0: [100.0]}, suite="mine")]),
    "bench.layouts": lambda: find("mine"),
    "bench.readers": lambda: reader("mine"),
    "bench.judges": lambda: load_judge("mine", "mini"),
    "bench.exporters": lambda: CliRunner().invoke(
        main, ["data", "export", "mine", "nowhere"], standalone_mode=False, catch_exceptions=False
    ),
}
LISTS = ("attacks", "encoders", "tasks", "objectives", "layouts", "engines", "sinks", "judges")


class Raising:
    """Whatever is asked of it fails."""

    def __getattr__(self, name):
        raise RuntimeError(f"no {name}")

    def __call__(self, *arguments, **options):
        raise OSError("no such file")


def leaves(*arguments, **options):
    raise SystemExit(3)


class Thing:
    """What members are given to."""


ATTRIBUTES = (
    *("about", "__doc__", "plan", "submit", "watch", "options", "run", "adapt", "check", "loss", "read", "settings"),
    *("version", "metric", "ceiling", "worst", "model", "part_scores_as_whole", "fits", "bind", "score", "broken"),
    *("begin", "log", "close"),
)
THINGS = st.one_of(
    st.none(),
    st.integers(),
    st.text(string.printable, max_size=5),
    st.sampled_from([[], {}, object(), int, dict, Thing, Raising, Raising()]),
)


def giving(thing):
    return lambda *arguments, **options: thing


MEMBERS = st.dictionaries(st.sampled_from(ATTRIBUTES), st.one_of(THINGS, THINGS.map(giving)), max_size=8)
INSTANCES = MEMBERS.map(lambda members: SimpleNamespace(**members))
CLASSES = MEMBERS.map(lambda members: type("Changed", (Thing,), members))
ANYTHING = st.one_of(
    THINGS, INSTANCES, CLASSES, st.just(leaves), st.one_of(THINGS, INSTANCES, CLASSES).map(giving)
)  # fmt: skip
FAILURES = st.sampled_from([ImportError("no torch"), SyntaxError("bad"), KeyError("x"), SystemExit(1)])


def try_out(monkeypatch: pytest.MonkeyPatch, group: str, thing: object, failure: BaseException | None) -> None:
    """Install the thing under the name "mine", or a module that fails, and go through its door."""

    def load(point):
        if failure is not None:
            raise failure
        return thing

    point = EntryPoint("mine", f"{__name__}:thing", group)
    monkeypatch.setattr(registry, "plugins", lambda asked: {"mine": point} if asked == group else {})
    monkeypatch.setattr(EntryPoint, "load", load)
    try:
        DOORS[group]()
    except UsageError as error:
        assert "mine" in str(error)  # noqa: PT017 - not every thing is refused
    if (listed := group.removeprefix("bench.")) in LISTS:
        result = CliRunner().invoke(main, ["list", listed])
        assert result.exit_code == 0, result.exc_info
        assert "mine" in result.output


@pytest.mark.parametrize("group", DOORS)
@settings(max_examples=SOME, derandomize=True, database=None)
@given(thing=ANYTHING, failure=st.none() | FAILURES)
def test_behind_a_door_may_be_anything(group, thing, failure):
    with pytest.MonkeyPatch.context() as monkeypatch:
        try_out(monkeypatch, group, thing, failure)


@pytest.mark.slow
@pytest.mark.parametrize("group", DOORS)
@settings(max_examples=MANY, database=None)
@given(thing=ANYTHING, failure=st.none() | st.none() | FAILURES)
def test_behind_a_door_may_be_anything_at_all(group, thing, failure):
    with pytest.MonkeyPatch.context() as monkeypatch:
        try_out(monkeypatch, group, thing, failure)


@pytest.mark.parametrize(
    "ask",
    [
        lambda query: execute_all([], on=f"slurm?{query}"),
        lambda query: sinks.check([f"tensorboard:logs?{query}"]),
        lambda query: load_defence(f"jpeg?{query}"),
        lambda query: open_table("hf:", f"nowhere?{query}"),
        lambda query: endpoint_place(f"http://127.0.0.1:8000/v1#m?{query}"),
        lambda query: load_judge(f"text?{query}", "mini"),
    ],
    ids=["on", "log-to", "defence", "training data", "endpoint", "judge"],
)
@pytest.mark.parametrize("query", ["time=1&time=2", "quality=50&quality=60", "quality=50&", "=1", "quality", "a=1;b"])
def test_an_option_is_given_once_and_with_its_value(ask, query):
    with pytest.raises(UsageError, match=r"twice|(OPTION|SETTING)=VALUE|unknown|has the setting"):
        ask(query)


def test_every_group_has_its_door_here():
    assert DOORS.keys() == set(registry.groups())


UNSIGNED = type(
    "Unsigned",
    (Thing,),
    dict.fromkeys(("__signature__", "begin", "log", "close", "submit", "watch"), leaves),
)


@pytest.mark.parametrize("group", DOORS)
@pytest.mark.parametrize("thing", [Raising(), Raising, UNSIGNED], ids=["raising", "gives-raising", "unsigned"])
def test_behind_a_door_may_be_what_raises_when_it_is_looked_at(monkeypatch, group, thing):
    try_out(monkeypatch, group, thing, None)


@pytest.mark.parametrize(
    "look",
    [
        lambda: resolve(Request.of(encoder="clip", task="mine")),
        lambda: asks_victims("mine"),
        lambda: check_judge(Request.of(judge="words"), ["mine"]),
        lambda: can_run_in_part(in_memory({0: [100.0]}, task="mine")),
    ],
)
def test_a_task_may_raise_whatever_is_asked_of_it_first(monkeypatch, look):
    monkeypatch.setitem(DOORS, "bench.tasks", look)
    try_out(monkeypatch, "bench.tasks", Raising(), None)
