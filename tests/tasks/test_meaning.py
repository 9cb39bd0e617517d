"""Numbers that cannot mean what they say: each is named by a check beside the number."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from tasks.base import Dataset
from tasks.captioning import Captioning
from tasks.metrics import exact_match
from tasks.protocol import PAPER
from tasks.stealth import Stealth
from tasks.vqa import VQA
from tasks.zeroshot import ZeroShot, told_apart
from tests.tasks.scripted import Scripted, make_sample

NAMES = ("cat", "dog", "qwx", "zvk")


def columns(*rows):
    return normalize(torch.tensor(rows), dim=-1).T


def test_classes_with_one_embedding_are_named():
    apart = columns([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0])
    assert told_apart(apart, NAMES).ok
    alike = columns([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.5, 0.7], [0.5, 0.5, 0.7])
    found = told_apart(alike, NAMES)
    assert not found.ok
    assert "'qwx' and 'zvk'" in found.detail
    assert "cat" not in found.detail


def test_what_rounding_decides_coincides_and_what_it_does_not_does_not():
    near = [[1.0, 0.0], [1.0, 1e-3], [1.0, 0.1]]
    assert not told_apart(columns(*near[:2]), NAMES[:2]).ok
    assert told_apart(columns(near[0], near[2]), NAMES[:2]).ok


def test_classes_of_one_name_coincide_by_intention():
    assert told_apart(columns([1.0, 0.0], [1.0, 0.0]), ("missile", "missile")).ok


def test_many_pairs_are_counted():
    found = told_apart(torch.ones(1, 5), ("a", "b", "c", "d", "e"))
    assert "'a' and 'b'" in found.detail
    assert "and 5 more pairs" in found.detail


def questions(*answers, **changes):
    samples = tuple(make_sample(said, key=str(k)) for k, said in enumerate(answers))
    return Dataset("d", samples, **changes)


@pytest.mark.parametrize(("annotators", "highest"), [(1, 0.0), (2, 33.3), (3, 66.7)])
def test_few_annotators_are_said_with_the_highest_score_there_is(annotators, highest):
    task = VQA(questions(["red"] * annotators, ["blue"] * annotators))
    (found,) = task.checks(task.bind(Scripted()))
    assert not found.ok
    assert "2 of 2 questions have fewer than 4 annotators" in found.detail
    assert f"no model can score above {highest} %" in found.detail
    assert 'scoring = "exact"' in found.detail
    assert max(task.score(said, task.dataset.samples[0]) for said in ("red", "blue", "")) == pytest.approx(
        highest, abs=0.05
    )


def test_four_annotators_suffice_and_a_mixture_is_averaged():
    task = VQA(questions(["red"] * 4, ["blue"] * 10))
    assert task.checks(None)[0].ok
    mixed = VQA(questions(["red"] * 2, ["blue"] * 10))
    assert "1 of 2" in mixed.checks(None)[0].detail
    assert "above 66.7 %" in mixed.checks(None)[0].detail


def test_exact_match_scores_single_answers():
    task = VQA(questions(["Red"], ["two"], scoring="exact"), PAPER)
    assert task.metric == "exact match (%)"
    assert [task.score(said, task.dataset.samples[0]) for said in ("the red.", "reddish", "")] == [100, 0, 0]
    assert task.score("2", task.dataset.samples[1]) == 100
    assert task.checks(None)[0].ok
    assert VQA(questions(["red"])).metric == "VQA accuracy (%)"
    with pytest.raises(ValueError, match="no exact match"):
        exact_match("red", [])


def test_of_one_class_every_answer_is_right():
    sample = make_sample(["cat"])
    assert "one class, 'cat'" in ZeroShot.fits(Dataset("d", (sample,), classnames=("cat",)))
    assert "one class, 'cat'" in ZeroShot.fits(Dataset("d", (sample,), classnames=("cat", "cat")))
    assert ZeroShot.fits(Dataset("d", (sample,), classnames=("cat", "dog"))) is None


@pytest.mark.parametrize("target", [[""], [" "], ["\n"], []])
def test_a_target_that_every_text_holds_is_refused(target):
    dataset = Dataset("d", (make_sample(["visit example.com"]), make_sample(target, key="2")))
    assert "'2' with an empty target" in Stealth.fits(dataset)
    assert Stealth.fits(Dataset("d", dataset.samples[:1])) is None


@pytest.mark.parametrize("task", [VQA, Captioning])
def test_of_empty_answers_none_can_be_right(task):
    first = make_sample(["red", ""], key="1")
    assert task.fits(Dataset("d", (first, make_sample([" ", "a"], key="2")))) is None
    assert "'2' with empty texts only" in task.fits(Dataset("d", (first, make_sample(["", " "], key="2"))))


def test_a_blank_prompt_is_none():
    sample = replace(make_sample(["red"]), prompt=" \n")
    assert "without a prompt" in VQA.fits(Dataset("d", (sample,)))


def test_an_unknown_scoring_is_refused():
    assert "asks for the scoring 'f1'; there are annotators, exact" in VQA.fits(questions(["red"], scoring="f1"))
    assert VQA.fits(questions(["red"], scoring="exact")) is None


def captions(*references):
    samples = tuple(make_sample([text], key=str(k)) for k, text in enumerate(references))
    return Dataset("d", samples)


def test_captions_that_no_answer_can_match_are_counted():
    sound = Captioning(captions("a red circle", "two blue squares"))
    assert sound.checks(None)[0].ok
    same = Captioning(captions("a red circle", "a red circle"))
    (found,) = same.checks(None)
    assert not found.ok
    assert "of 2 images, 2 score 0 whatever is said of them" in found.detail
    assert "'0'" in found.detail
    assert same.score("a red circle", same.dataset.samples[0]) == 0


def test_two_questions_about_one_image_are_one_image_for_cider():
    first, second = captions("a red circle", "two blue squares").samples
    one = Dataset("d", (first, make_sample(["two blue squares"], key="0")))
    assert "one image" in Captioning.fits(one)
    assert Captioning.fits(Dataset("d", (first, second))) is None


class Blank:
    """An encoder whose logits are what they are told to be."""

    def __init__(self, logits):
        self.logits = logits

    def __call__(self, images):
        return self.logits

    class text:  # noqa: N801
        scale = 1.0

        @staticmethod
        def classifier(classnames, templates):
            return torch.eye(4)


@pytest.mark.parametrize("value", [-torch.inf, torch.inf, torch.nan])
def test_targets_exist_where_a_surrogates_logits_are_not_finite(value, monkeypatch):
    """A transfer asks the surrogate for rivals on images that it cannot read."""
    task = ZeroShot(Dataset("d", (make_sample(["cat"]),), classnames=NAMES))
    victim = task.bind(Blank(torch.zeros(1, 4)))
    logits = torch.tensor([[1.0, value, value, value]])
    monkeypatch.setattr(type(victim), "logits", lambda self, images: logits)
    for rank in (1, 2, 3):
        goal = victim.objective(torch.zeros(1, 3, 2, 2), task.dataset.samples, f"targeted-{rank}")
        assert goal.targets.tolist() != [0]
