"""Plugins that raise, or return what they should not: one line that names them, never a traceback."""

import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from attacks.presets import PRESETS, AttackStep, Preset
from bench import registry
from bench.cli import main
from bench.errors import UsageError
from bench.running.plugins import ask, score_of, task_class
from tasks.base import Answer
from tests.bench.toy_runs import make_setup, short, victim

MODULE = """
from attacks.kinds import AttackKind
from bench.config import TaskPlan
from tasks.base import Answer
from tasks.zeroshot import ZeroShot, _Classifier


class Fine(ZeroShot):
    name = "fine"
    plan = TaskPlan(("mini-shape",), 4, "none")


class RaisesInScore(Fine):
    def score(self, prediction, sample):
        return {}["nothing"]


class RaisesInInit(Fine):
    def __init__(self, dataset, protocol):
        raise OSError("no such file: words.txt")


class ScoresText(Fine):
    def score(self, prediction, sample):
        return "right"


class ScoresNothing(Fine):
    def score(self, prediction, sample):
        return None


class SaysText(Fine):
    def bind(self, model):
        bound = super().bind(model)
        return Saying(bound.encoder, bound.weights, bound.scale, bound.classes)


class Saying(_Classifier):
    def predict(self, images, samples):
        return [answer.text for answer in super().predict(images, samples)]


class Mute(SaysText):
    def bind(self, model):
        bound = super().bind(model)
        object.__setattr__(bound, "predict", lambda images, samples: None)
        return bound


class Short(SaysText):
    def bind(self, model):
        bound = super().bind(model)
        object.__setattr__(bound, "predict", lambda images, samples: [Answer("a")])
        return bound


class Bare:
    plan = TaskPlan(("mini-shape",), 4, "none")
    version, metric, worst, model = 1, "accuracy (%)", "min", "encoder"


not_a_class = 3


def raising(objective, images, threat, context):
    raise KeyError("delta")


class NoKind:
    pass
"""
TASKS = ("Fine", "RaisesInScore", "RaisesInInit", "ScoresText", "ScoresNothing", "SaysText", "Mute", "Short", "Bare")


@pytest.fixture
def plugin(monkeypatch):
    """A package of broken things, found as installed ones are."""
    module = ModuleType("broken_things")
    monkeypatch.setitem(sys.modules, "broken_things", module)
    exec(compile(MODULE, "broken_things.py", "exec"), module.__dict__)

    def point(name):
        return SimpleNamespace(
            module="broken_things", value=f"broken_things:{name}", load=lambda: getattr(module, name), dist=None
        )

    found = {
        "bench.tasks": {name: point(name) for name in (*TASKS, "not_a_class")},
        "bench.attack_kinds": {name: point(name) for name in ("raising", "NoKind")},
    }
    monkeypatch.setattr(registry, "plugins", lambda group: found.get(group, {}))


def shown(tmp_path, task, *more):
    words = ["run", "--encoder", "clip", "--task", task, "--limit", "4", "--jobs", "1", "--quiet", *more]
    result = CliRunner().invoke(main, [*words, "--output", str(tmp_path)])
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    return result


def test_a_sound_plugin_runs(plugin, tmp_path):
    assert shown(tmp_path, "Fine").exit_code == 0


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("RaisesInScore", ["code of a plugin (broken_things.RaisesInScore.score, line", "raised KeyError: 'nothing'"]),
        ("RaisesInInit", ["(broken_things.RaisesInInit.__init__, line", "raised OSError: no such file: words.txt"]),
        ("ScoresText", ["broken_things.ScoresText.score returned 'right', which is no number"]),
        ("ScoresNothing", ["broken_things.ScoresNothing.score returned None, which is no number"]),
        ("SaysText", ["broken_things.Saying.predict answered '", "a tasks.base.Answer with a text is needed"]),
        ("Mute", ["predict returned a NoneType for 4 images; one tasks.base.Answer per image is needed"]),
        ("Short", ["predict returned 1 answers for 4 images"]),
        ("Bare", ["'Bare'", "it lacks ceiling, part_scores_as_whole, fits, bind, score, broken, applies"]),
    ],
)
def test_a_broken_task_is_one_line_that_names_it(plugin, tmp_path, task, words):
    result = shown(tmp_path, task)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    for word in words:
        assert word in result.output


def test_what_is_no_class_is_no_task(plugin):
    with pytest.raises(UsageError, match=r"'not_a_class'.*it is a int, not a class like tasks.base.Task"):
        task_class("not_a_class")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("raising", ["(broken_things.raising, line", "raised KeyError: 'delta'"]),
        ("NoKind", ["the plugin attack kind 'NoKind'", "an attacks.kinds.AttackKind or a function, not a type"]),
    ],
)
def test_a_broken_attack_kind_is_one_line_that_names_it(plugin, tmp_path, monkeypatch, kind, words):
    monkeypatch.setitem(PRESETS, "mine", Preset("", (AttackStep("mine", kind, 1, "untargeted", "clean", 1.0),)))
    result = shown(tmp_path, "Fine", "--attack", "mine", "--eps", "4")
    assert result.exit_code == 2
    for word in words:
        assert word in result.output


def test_an_error_of_our_own_code_is_not_blamed_on_a_plugin(plugin, tmp_path, monkeypatch):
    def wrong(*arguments):
        raise KeyError("ours")

    monkeypatch.setattr("bench.running.loop.prepare", wrong)
    words = ["run", "--encoder", "clip", "--task", "Fine", "--limit", "4", "--jobs", "1", "--output", str(tmp_path)]
    assert isinstance(CliRunner().invoke(main, words).exception, KeyError)


@pytest.mark.parametrize("number", [1, 2.5, np.float32(50), True])
def test_any_number_is_a_score(number):
    setup = make_setup("toy")
    task = setup.task
    task.score = lambda prediction, sample: number
    found = score_of(task, Answer("a"), setup.samples[0])
    assert (type(found), found) == (float, float(number))


def test_answers_pass_as_they_are():
    setup = make_setup("toy")
    answers = ask(victim(), setup.images.pixels, setup.samples)
    assert answers == victim().predict(setup.images.pixels, setup.samples)


def test_options_that_a_kind_does_not_have_end_before_anything_is_computed(tmp_path, monkeypatch):
    step = replace(short("pgd")[0], options={"momentum": 2})
    monkeypatch.setitem(PRESETS, "mine", Preset("", (step,)))
    result = shown(tmp_path, "zeroshot", "--attack", "mine", "--eps", "4", "--dataset", "mini-shape")
    assert result.exit_code == 2
    assert "step 'pgd': option momentum of kind 'pgd' must be a number from 0 to below 1, not 2" in result.output
    assert not list(tmp_path.rglob("run.json"))
