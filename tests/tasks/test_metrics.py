"""Text metrics against hand-derived cases and the official implementation."""

import random

import pytest
from pycocoevalcap.cider.cider import Cider as OfficialCider

from bench.mini import data
from tasks.metrics import Cider, contains_target, normalise, vqa_accuracy
from tasks.metrics.ptb import tokenize

# ---- VQA accuracy ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("matching", "percent"),
    # m of 10 agree: 10 - m annotators see m others, m annotators see m - 1
    [(0, 0), (1, 30), (2, 60), (3, 90), (4, 100), (10, 100)],
)
def test_accuracy_leaves_each_annotator_out_in_turn(matching, percent):
    answers = ["red"] * matching + [f"other {i}" for i in range(10 - matching)]
    assert vqa_accuracy("red", answers) == pytest.approx(percent)


def test_accuracy_by_definition():
    """Against the definition written out: mean over annotators of min(1, others who agree / 3)."""
    rng = random.Random(0)
    for _ in range(200):
        answers = [rng.choice(["a cat", "Cat.", "dog", "two", "2"]) for _ in range(rng.randint(1, 12))]
        said = rng.choice(["cat", "dog", "2", "bird"])
        shares = []
        for left_out in range(len(answers)):
            others = [a for i, a in enumerate(answers) if i != left_out]
            shares.append(min(1, sum(normalise(a) == normalise(said) for a in others) / 3))
        assert vqa_accuracy(said, answers) == pytest.approx(100 * sum(shares) / len(shares))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("The Red Ball", "red ball"),
        ("two\tdogs\n", "2 dogs"),
        ("none", "0"),
        ("3.5 p.m.", "3.5 pm"),
        ("dont", "don't"),
        ("couldntve", "couldntve"),  # only one apostrophe may be missing
        ("couldnt've", "couldn't've"),
        ("oclock", "o'clock"),
        ("somebody'd", "somebodyd"),
        ("black-white", "black white"),  # no space beside the mark: a space takes its place
        ("black -white", "black white"),  # a space beside it: the mark is deleted
        ("10,000", "10000"),  # a comma between digits: marks are deleted
        ("yes!", "yes"),
        ("", ""),
        (" \n ", ""),
        ("?!", ""),
        ("a an the", ""),
        ("🎈", "🎈"),
        ("I.I." * 40, "ii" * 16 + "i" * 0 + "i.i." * 24),  # 32 periods at most
    ],
)
def test_normalisation(raw, expected):
    assert normalise(raw) == expected


def test_no_answers_raise():
    with pytest.raises(ValueError, match="answer"):
        vqa_accuracy("red", [])


def test_very_long_predictions_are_scored():
    assert vqa_accuracy("red " * 10_000, ["red"] * 10) == 0


# ---- CIDEr -----------------------------------------------------------------------------------------------


def _compare(references, captions):
    ours = Cider(references)
    tokenised = {k: [" ".join(tokenize(r)) for r in texts] for k, texts in references.items()}
    said = {k: [" ".join(tokenize(captions[k]))] for k in references}
    corpus, images = OfficialCider().compute_score(tokenised, said)
    scores = [ours.score(key, captions[key]) for key in tokenised]
    assert scores == pytest.approx([100 * s for s in images], rel=1e-9, abs=1e-9)
    assert sum(scores) / len(scores) == pytest.approx(100 * corpus, rel=1e-9)


def test_cider_equals_the_official_scorer_on_the_mini_captions():
    samples, rng = data.build("mini-caption", 80).samples, random.Random(0)
    references = {s.id: s.references for s in samples}
    captions = {s.id: rng.choice([rng.choice(samples).references[1], s.references[2], "", "red"]) for s in samples}
    _compare(references, captions)


def test_cider_equals_the_official_scorer_on_edge_cases():
    _compare({"1": ["a cat sat", "one cat"]}, {"1": "a cat sat"})  # one image: every idf is log 1
    references = {"1": ["a dog runs", "dog"], "2": ["two men, talking.", "a man and a man"], "3": ["!!", "x"]}
    _compare(references, {"1": "a a a a a dog runs", "2": "", "3": "🎈 !"})
    _compare(references, {"1": "dog " * 500, "2": "a man and a man", "3": "x"})


def test_cider_refuses_what_it_cannot_score():
    with pytest.raises(ValueError, match="'2' has no reference"):
        Cider({"1": ["a"], "2": []})
    with pytest.raises(KeyError):
        Cider({"1": ["a"]}).score("2", "a")


# ---- Targets ---------------------------------------------------------------------------------------------


def test_targets_are_found_whatever_their_case():
    assert contains_target("Now Visit HTTPS://x.y today", "visit https://X.y")
    assert not contains_target("visit  https://x.y", "visit https://x.y")
    with pytest.raises(ValueError, match="empty"):
        contains_target("anything", "")
