"""ScienceQA as a task: scores by either rule, attacks towards each wrong option."""

from dataclasses import replace

import pytest
import torch

from tasks.base import Dataset
from tasks.protocol import PAPER, STRICT
from tasks.scienceqa import ScienceQA
from tests.tasks.scripted import Scripted, make_sample

ASKED = replace(make_sample(["blue"]), label=1, choices=("red", "blue", "green"))
IMAGES = torch.tensor([0.3, 0.6]).view(2, 1, 1, 1).expand(2, 3, 4, 4)


def _task(protocol=STRICT):
    return ScienceQA(Dataset("d", (ASKED,)), protocol)


def test_an_answer_is_read_by_the_rule_of_the_protocol():
    assert [_task().score(said, ASKED) for said in ("B", "(B)", "Blue", "A", "", "D")] == [100, 100, 100, 0, 0, 0]
    assert [_task(PAPER).score(said, ASKED) for said in ("B", "(B)", "Blue", "B. red")] == [100, 0, 0, 100]


def test_goals_lead_away_from_the_right_option_or_to_each_wrong_one():
    model = Scripted()
    victim = _task().bind(model)
    away = victim.objective(IMAGES[:1], (ASKED,), "untargeted")
    assert model.wanted == ["B"]
    loss, fooled = away(IMAGES, torch.zeros(2, dtype=torch.int64))
    assert loss.tolist() == pytest.approx([0.3, 0.6])
    assert fooled.tolist() == [False, False]  # other words may name the same option: the answer decides
    for goal, letter in (("wrong-1", "A"), ("wrong-2", "C")):
        towards = victim.objective(IMAGES[:1], (ASKED,), goal)
        assert model.wanted == [letter]
        assert towards(IMAGES, torch.zeros(2, dtype=torch.int64)).fooled.tolist() == [False, True]


def test_wrong_options_that_do_not_exist_are_skipped():
    task = _task()
    assert [task.applies(f"wrong-{n}", ASKED) for n in (1, 2, 3)] == [True, True, False]
    assert not task.applies("reference-1", ASKED)
    with pytest.raises(ValueError, match="targeted-1"):
        task.applies("targeted-1", ASKED)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"choices": ("red",)}, "with 1 options"),
        ({"choices": tuple("abcdef")}, "with 6 options"),
        ({"label": None}, "which option is right"),
        ({"label": 3}, "which option is right"),
        ({"label": -1}, "which option is right"),
    ],
)
def test_what_fits(changes, reason):
    found = ScienceQA.fits(Dataset("d", (replace(ASKED, **changes),)))
    assert (found is None) if reason is None else reason in found
