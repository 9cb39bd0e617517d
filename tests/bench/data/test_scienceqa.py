"""The reader of ScienceQA's files."""

import json

import pytest
from PIL import Image

from bench.data.scienceqa import scienceqa
from bench.errors import UsageError

PROBLEM = {
    "question": "Which is red?", "choices": ["the sea", "the rose"], "answer": 1, "hint": "Look.", "image": "image.png",
    "lecture": "Colours differ.", "grade": "grade7", "subject": "natural science",
}  # fmt: skip


def _write(root, problems, split=("1", "2", "3")):
    (root / "images" / "test" / "1").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(root / "images" / "test" / "1" / "image.png")
    (root / "problems.json").write_text(json.dumps(problems))
    (root / "pid_splits.json").write_text(json.dumps({"test": list(split)}))


def _read(root, **settings):
    return scienceqa(
        "s", root, problems="problems.json", splits="pid_splits.json", images="images", max_new_tokens=8, **settings
    )


def test_problems_with_an_image_are_read_in_the_order_of_the_split(tmp_path):
    younger = PROBLEM | {"grade": "grade2", "hint": ""}
    _write(tmp_path, {"1": PROBLEM, "2": PROBLEM | {"image": None}, "3": younger})
    first, second = _read(tmp_path).samples
    assert (first.id, first.prompt) == ("1", "Look.\nWhich is red?\nA. the sea\nB. the rose")
    assert (first.label, first.choices, first.references) == (1, ("the sea", "the rose"), ("the rose",))
    assert first.image == tmp_path / "images" / "test" / "1" / "image.png"
    assert first.categories == ("NAT", "TXT", "IMG", "G7-12")
    assert second.categories == ("NAT", "IMG", "G1-6")
    (longer, _) = _read(tmp_path, lecture=True, hint=False).samples
    assert longer.prompt.startswith("Colours differ.\nWhich is red?")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"choices": ["one"]}, "choices must be 2 to 5"),
        ({"choices": [1, 2]}, "choices must be 2 to 5"),
        ({"answer": 2}, "answer 2 names none"),
        ({"answer": "B"}, "'answer' is 'B'"),
        ({"subject": "magic"}, "subject 'magic'"),
        ({"grade": "seven"}, "grade must be written"),
        ({"question": None}, "'question' is None"),
        ({"answer": True}, "'answer' is True"),
        ({"grade": "grade" + "9" * 5000}, "grade must be written"),
        ({"choices": ["a", "\ud800"]}, "no text in Unicode"),
    ],
)
def test_what_is_wrong_with_a_problem_is_said(tmp_path, changes, reason):
    _write(tmp_path, {"1": PROBLEM | changes}, ["1"])
    with pytest.raises(UsageError, match=reason) as caught:
        _read(tmp_path)
    assert "problem 1" in str(caught.value)


def test_splits_and_problems_that_are_missing_are_named(tmp_path):
    _write(tmp_path, {"1": PROBLEM}, ["1", "9"])
    with pytest.raises(UsageError, match="'9'"):
        _read(tmp_path)
    with pytest.raises(UsageError, match="no split 'val'; it has test"):
        _read(tmp_path, split="val")
    _write_again = {"1": PROBLEM | {"image": None}}
    (tmp_path / "problems.json").write_text(json.dumps(_write_again))
    (tmp_path / "pid_splits.json").write_text(json.dumps({"test": ["1"]}))
    with pytest.raises(UsageError, match="no problem of split 'test' has an image"):
        _read(tmp_path)


def test_a_problem_that_comes_twice_is_named(tmp_path):
    _write(tmp_path, {"1": PROBLEM}, ["1", "1"])
    with pytest.raises(UsageError, match=r"pid_splits\.json: problem 1 comes twice"):
        _read(tmp_path)
