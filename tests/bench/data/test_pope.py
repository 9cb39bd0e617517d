"""The reader of POPE's files."""

import json

import pytest
from PIL import Image

from bench.data.pope import pope
from bench.errors import UsageError

LINES = [
    {"question_id": 1, "image": "a.jpg", "text": "Is there a dog in the image?", "label": "yes"},
    {"question_id": 2, "image": "a.jpg", "text": "Is there a cat in the image?", "label": "No"},
]


def _write(root, lines):
    (root / "val2014").mkdir()
    Image.new("RGB", (4, 4)).save(root / "val2014" / "a.jpg")
    (root / "q.json").write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))


def _read(root, **settings):
    return pope("p", root, questions="q.json", images="val2014", max_new_tokens=8, **settings)


def test_questions_are_read_in_order_and_clustered_by_image(tmp_path):
    _write(tmp_path, LINES)
    dataset = _read(tmp_path, prompt_suffix="\nbriefly", answer_words=("Yes", "No"))
    assert [(s.id, s.prompt, s.references, s.group) for s in dataset.samples] == [
        ("1", "Is there a dog in the image?", ("yes",), "a.jpg"),
        ("2", "Is there a cat in the image?", ("no",), "a.jpg"),
    ]
    assert dataset.samples[0].image == tmp_path / "val2014" / "a.jpg"
    assert (dataset.prompt_suffix, dataset.answer_words) == ("\nbriefly", ("Yes", "No"))


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([], "is empty"),
        (["{"], "line 1 is not JSON"),
        (["[1]"], "line 1 is not a JSON object"),
        ([LINES[0], LINES[0]], "question_id 1 comes twice"),
        ([LINES[0] | {"label": "maybe"}], "question_id 1: label is 'maybe'"),
        ([{k: v for k, v in LINES[0].items() if k != "text"}], "no field 'text'"),
        ([LINES[0] | {"image": 7}], "'image' is 7"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(tmp_path, lines, reason):
    _write(tmp_path, lines)
    with pytest.raises(UsageError, match=reason) as caught:
        _read(tmp_path)
    assert "q.json" in str(caught.value)


def test_files_that_are_missing_are_named(tmp_path):
    with pytest.raises(UsageError, match="val2014"):
        _read(tmp_path)
    (tmp_path / "val2014").mkdir()
    with pytest.raises(UsageError, match=r"q\.json"):
        _read(tmp_path)
