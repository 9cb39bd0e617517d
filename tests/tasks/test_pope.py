"""POPE as a task: scores by either rule, the direction of its attack, what it refuses."""

import pytest
import torch

from tasks.base import Answer, Dataset
from tasks.pope import Pope
from tasks.protocol import PAPER, STRICT
from tests.tasks.scripted import Scripted, make_sample

YES, NO = make_sample(["yes"], prompt="is there a dog ?"), make_sample(["no"], prompt="is there a cat ?")
IMAGES = torch.tensor([0.0, 0.3, 0.6]).view(3, 1, 1, 1).expand(3, 3, 4, 4)
ROWS = torch.tensor([0, 1, 0])


def _task(protocol=STRICT, **changes):
    return Pope(Dataset("d", (YES, NO), prompt_suffix=" briefly", **changes), protocol)


def test_an_answer_is_read_by_the_rule_of_the_protocol():
    assert [_task().score(said, NO) for said in ("No.", "yes", "", "nothing")] == [100, 0, 0, 0]
    assert [_task(PAPER).score(said, YES) for said in ("No.", "yes", "", "nothing")] == [0, 100, 100, 100]
    assert not _task().broken(100.0, YES)
    assert _task().broken(0.0, YES)


def test_the_attack_leads_to_the_wrong_answer_and_ends_when_it_is_said():
    model = Scripted("Yes, there is.")
    task = _task(answer_words=("Yes", "No"))
    victim = task.bind(model)
    objective = victim.objective(IMAGES[:2], (YES, NO), "untargeted")
    assert model.wanted == ["No", "Yes"]
    loss, fooled = objective(IMAGES, ROWS)
    assert loss.tolist() == pytest.approx([0, -0.3, -0.6])  # minus the likelihood's negative logarithm: it ascends
    assert fooled.tolist() == [False, False, True]
    assert victim.predict(IMAGES[:2], (YES, NO)) == [Answer("Yes, there is.")] * 2
    assert model.asked == ["is there a dog ? briefly", "is there a cat ? briefly"]


def test_goals_of_other_attacks_are_skipped_or_refused():
    task = _task()
    assert task.applies("untargeted", YES)
    assert task.applies("reference-0", YES)
    assert not task.applies("reference-1", YES)
    assert not task.applies("target:maybe", YES)
    with pytest.raises(ValueError, match="targeted-1"):
        task.applies("targeted-1", YES)


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        ((YES, NO), None),
        ((YES, make_sample(["maybe"], key="7")), "'7' with the answer"),
        ((make_sample(["yes"], key="7", prompt=""),), "without a prompt"),
        ((make_sample(["yes", "no"], key="7"),), "'7' with the answer"),
    ],
)
def test_what_fits(samples, reason):
    found = Pope.fits(Dataset("d", samples))
    assert (found is None) if reason is None else reason in found
