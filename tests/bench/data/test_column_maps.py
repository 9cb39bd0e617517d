"""Tables as lmms-eval and VLMEvalKit publish them: small files of the same columns become samples."""

import base64
import csv
from pathlib import Path

import datasets
import pytest

from bench import registry
from bench.data.column_maps import column_maps
from bench.data.images import open_image
from bench.data.readers import load
from bench.data.specs import parse
from tests.bench.data.small import png, refused
from tests.bench.data.tables import PICTURES, parquet

pytestmark = pytest.mark.usefixtures("own_cache")
TEN = [{"answer": word, "answer_confidence": "yes", "answer_id": k} for k, word in enumerate(["down"] * 9 + ["table"])]
LISTS = [["down"] * 9 + ["table"]] * 3
ASKED = ["where is he looking?", "what brand is it?", "is it red?"]
TABLES = {
    "vqav2": {
        "question_type": ["none of the above"] * 3,
        "multiple_choice_answer": ["down"] * 3,
        "answers": [TEN] * 3,
        "image_id": [262148, 262148, 393225],
        "answer_type": ["other"] * 3,
        "question_id": [262148000, 262148001, 393225000],
        "question": ASKED,
        "image": PICTURES,
    },
    "okvqa": {
        "question_id": ["2971475", "3397615", "5"],
        "image": PICTURES,
        "question": ASKED,
        "answers": LISTS,
        "question_type": ["one"] * 3,
    },
    "textvqa": {
        "image_id": ["003a8ae2ef43b901", "003a8ae2ef43b901", "b"],
        "question_id": [34602, 34603, 34604],
        "question": ASKED,
        "image": PICTURES,
        "image_width": [5] * 3,
        "answers": LISTS,
        "image_classes": [["Phone"]] * 3,
        "ocr_tokens": [["DAKOTA", "DIGITAL"], [], ["{choices}"]],
        "set_name": ["val"] * 3,
    },
    "vizwiz": {
        "question_id": [f"VizWiz_val_0000000{k}.jpg" for k in range(3)],
        "image": PICTURES,
        "question": ASKED,
        "answers": LISTS,
        "category": ["other", "other", "unanswerable"],
    },
    "pope": {
        "id": ["0", "1", "2"],
        "question_id": ["1", "2", "1"],
        "question": ["Is there a dog in the image?"] * 3,
        "answer": ["yes", "No", "no"],
        "image_source": ["COCO_val2014_000000310196"] * 2 + ["b"],
        "image": PICTURES,
        "category": ["adversarial", "adversarial", "popular"],
    },
    "scienceqa": {
        "image": [PICTURES[0], None, PICTURES[2]],
        "question": ["Which is north?", "never asked", "What is alive?"],
        "choices": [["Ohio", "Maine"], ["a", "b"], ["rock", "fern", "tin"]],
        "answer": [1, 0, 1],
        "hint": ["Look at the map.", "", ""],
        "task": ["closed choice"] * 3,
        "grade": ["grade2"] * 3,
        "subject": ["social science", "x", "natural science"],
        "lecture": [""] * 3,
    },
    "coco-captions": {
        "question_id": [f"COCO_val2014_00000000000{k}.jpg" for k in range(3)],
        "image": PICTURES,
        "question": ["Please carefully observe the image and come up with a caption for the image."] * 3,
        "answer": [["a dog", "the dog", "dogs"]] * 3,
        "id": [7, 8, 9],
        "license": [1] * 3,
        "file_name": ["f"] * 3,
    },
    "flickr30k": {
        "image": PICTURES,
        "caption": [["a man", "two men"]] * 3,
        "sentids": [["0", "1"]] * 3,
        "split": ["train", "val", "test"],
        "img_id": ["0", "1", "2"],
        "filename": ["1000092795.jpg"] * 3,
    },
    "mmbench": {
        "index": [241, 252, 253],
        "question": ASKED,
        "hint": ["Read it.", "nan", "nan"],
        "answer": ["A", "B", "A"],
        "A": ["up", "red", "yes"],
        "B": ["down", "blue", "no"],
        "C": ["left", "nan", "nan"],
        "D": ["right", "nan", "nan"],
        "category": ["identity_reasoning"] * 3,
        "image": PICTURES,
        "source": ["reasoning"] * 3,
        "L2-category": ["attribute_reasoning"] * 3,
        "comment": ["nan"] * 3,
        "split": ["dev"] * 3,
    },
}
EXPECTED = {  # of the first sample: id, group, prompt, references, label, choices, categories
    "vqav2": ("262148000", "262148", ASKED[0], ("down",) * 9 + ("table",), None, (), ()),
    "okvqa": ("2971475", "2971475", ASKED[0], ("down",) * 9 + ("table",), None, (), ()),
    "textvqa": ("34602", "003a8ae2ef43b901", ASKED[0], ("down",) * 9 + ("table",), None, (), ()),
    "vizwiz": ("VizWiz_val_00000000.jpg",) * 2 + (ASKED[0], ("down",) * 9 + ("table",), None, (), ("category: other",)),
    "pope": (
        *("0", "COCO_val2014_000000310196", "Is there a dog in the image?", ("yes",), None, ()),
        ("category: adversarial",),
    ),
    "scienceqa": (
        *("0", "0", "Context: Look at the map.\nWhich is north?\nA. Ohio\nB. Maine", ("Maine",), 1, ("Ohio", "Maine")),
        ("subject: social science",),
    ),
    "coco-captions": (
        *("COCO_val2014_000000000000.jpg",) * 2,
        *("Provide a one-sentence caption for the provided image.", ("a dog", "the dog", "dogs"), None, (), ()),
    ),
    "flickr30k": (
        *("0", "0", "Provide a one-sentence caption for the provided image.", ("a man", "two men"), None, (), ()),
    ),
    "mmbench": (
        *("241", "241", "Read it.\nwhere is he looking?\nA. up\nB. down\nC. left\nD. right", ("up",), 0),
        *(("up", "down", "left", "right"), ("category: identity_reasoning",)),
    ),
}


def _said(sample):
    return (
        sample.id,
        sample.group,
        sample.prompt,
        sample.references,
        sample.label,
        sample.choices,
        sample.categories,
    )


def _fits(task, dataset):
    return registry.resolve("bench.tasks", task).fits(dataset) is None


def _read(root, name, source="t.parquet", **row):
    return load("t", {"format": "table", "source": source, "column_map": name, **row}, root)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_the_published_columns(tmp_path, name):
    parquet(tmp_path / "t.parquet", TABLES[name], image=datasets.Image())
    dataset = _read(tmp_path, name)
    assert _said(dataset.samples[0]) == EXPECTED[name]
    assert open_image(dataset.samples[-1].image).getpixel((0, 0)) == (2, 0, 0)
    facts = column_maps()[name]
    assert dataset.prompt_suffix == facts.prompt_suffix
    assert _fits(facts.task, dataset)


def test_rows_without_an_image_are_left_out_and_counted(tmp_path):
    parquet(tmp_path / "t.parquet", TABLES["scienceqa"], image=datasets.Image())
    dataset = _read(tmp_path, "scienceqa")
    assert [s.id for s in dataset.samples] == ["0", "2"]
    assert dataset.samples[1].prompt == "What is alive?\nA. rock\nB. fern\nC. tin"
    assert dataset.notes == ("rows without an image, which are left out: 1",)


def test_choices_that_stand_for_nothing_end_the_list(tmp_path):
    parquet(tmp_path / "t.parquet", TABLES["mmbench"], image=datasets.Image())
    second = _read(tmp_path, "mmbench").samples[1]
    assert (second.prompt, second.choices, second.label) == ("what brand is it?\nA. red\nB. blue", ("red", "blue"), 1)


def test_ocr_tokens_enter_the_prompt_by_template(tmp_path):
    """What a row says is text: a token that looks like a field stays as it is."""
    parquet(tmp_path / "t.parquet", TABLES["textvqa"], image=datasets.Image())
    prompts = [s.prompt for s in _read(tmp_path, "textvqa-ocr").samples]
    assert prompts == [
        f"{ASKED[0]}\nReference OCR token: DAKOTA, DIGITAL",
        ASKED[1],
        f"{ASKED[2]}\nReference OCR token: {{choices}}",
    ]
    own = _read(tmp_path, "textvqa", ocr="ocr_tokens", template="Text: {ocr}\nQ: {question}")
    assert own.samples[0].prompt == f"Text: DAKOTA, DIGITAL\nQ: {ASKED[0]}"
    refused(lambda: _read(tmp_path, "textvqa", template="{ocr}"), "asks for {ocr}", "question", "by ocr=COLUMN")
    refused(lambda: _read(tmp_path, "textvqa", template="{orc}"), "{orc}", "known: question, hint, ocr, choices")


def test_gqas_images_are_a_configuration_of_their_own(tmp_path):
    """As on the hub: a folder whose card names both configurations."""
    asked = {"id": ["201307251", "2", "3"], "imageId": ["n161313", "n1", "n161313"], "question": ASKED}
    asked |= {"answer": ["no", "yes", "left"], "fullAnswer": ["No, it is not."] * 3}
    parquet(tmp_path / "gqa/testdev_balanced_instructions/testdev-00000-of-00001.parquet", asked)
    pictures = {"id": ["n1", "n161313"], "image": PICTURES[:2]}
    parquet(tmp_path / "gqa/testdev_balanced_images/testdev-00000-of-00001.parquet", pictures, image=datasets.Image())
    configs = "\n".join(
        f"- config_name: {name}\n  data_files:\n  - split: testdev\n    path: {name}/testdev-*"
        for name in ("testdev_balanced_images", "testdev_balanced_instructions")
    )
    (tmp_path / "gqa/README.md").write_text(f"---\nconfigs:\n{configs}\n---\n")
    dataset = _read(tmp_path, "gqa", "gqa")
    assert [(s.id, s.group, s.references) for s in dataset.samples][:2] == [
        ("201307251", "n161313", ("no",)),
        ("2", "n1", ("yes",)),
    ]
    assert [open_image(s.image).getpixel((0, 0))[0] for s in dataset.samples] == [1, 0, 1]
    assert (dataset.scoring, dataset.notes) == ("exact", ())
    files = {"images_source": "gqa/testdev_balanced_images/testdev-00000-of-00001.parquet"}
    source = "gqa/testdev_balanced_instructions/testdev-00000-of-00001.parquet"
    assert [s.group for s in _read(tmp_path, "gqa", source, **files).samples] == ["n161313", "n1", "n161313"]
    parquet(tmp_path / "gqa/few.parquet", {"id": ["n1"], "image": PICTURES[:1]}, image=datasets.Image())
    refused(
        lambda: _read(tmp_path, "gqa", source, images_source="gqa/few.parquet"), "row 0", "no image with id 'n161313'"
    )


def test_a_dataset_of_the_hub_brings_its_map_and_its_task():
    for name, one in column_maps().items():
        for identifier in one.hub:
            place = parse(f"hf:{identifier}?split=mine", None, {"max_new_tokens": 5})
            assert place.row["column_map"] == name
            assert (place.row["split"], place.row["max_new_tokens"]) == ("mine", 5)
            assert place.suits(one.task)
            assert not place.suits("zeroshot")
    assert "column_map" not in parse("hf:somebody/else", None, {}).row
    assert parse("hf:lmms-lab/textvqa?column_map=textvqa-ocr", None, {}).row["column_map"] == "textvqa-ocr"


# ---- VLMEvalKit's TSV files ------------------------------------------------------------------------------------------


def _tsv(path: Path, rows: list[dict]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t", quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)
    return path


def _base64(k=0, size=(40, 30)):
    return base64.b64encode(png((k, 0, 0), size)).decode()


def _choice(index, image, **changes):
    row = {"index": index, "question": "which\tone?", "hint": "", "A": "red", "B": "None", "C": "", "D": ""}
    return {**row, "answer": "B", "category": "colour", "image": image, "l2-category": "x", "split": "dev", **changes}


def _spec(root, text, task="scienceqa"):
    place = parse(text, root, {"max_new_tokens": 5})
    assert place.suits(task)
    return load(place.name, place.row, place.root)


def test_multiple_choice_in_a_tsv_file(tmp_path):
    """An image may be the index of the row that has it; "None" is a choice, not a missing one."""
    rows = [_choice(5, _base64(3)), _choice(6, "5", hint="Look\nclosely."), _choice(7, f"['{_base64(4)}']", answer="A")]
    _tsv(tmp_path / "MMBench_DEV_EN.tsv", [*rows, _choice(8, "")])
    dataset = _spec(tmp_path, "tsv:MMBench_DEV_EN.tsv")
    assert (dataset.name, len(dataset.samples)) == ("MMBench_DEV_EN", 3)
    assert _said(dataset.samples[0]) == (
        *("5", "5", "Question: which\tone?\nOptions:\nA. red\nB. None", ("None",), 1, ("red", "None")),
        ("category: colour",),
    )
    assert dataset.samples[1].prompt.startswith("Hint: Look\nclosely.\nQuestion: which")
    assert [open_image(s.image).getpixel((0, 0))[0] for s in dataset.samples] == [3, 3, 4]
    assert dataset.samples[2].label == 0
    assert _fits("scienceqa", dataset)


def test_a_tsv_file_may_begin_with_the_mark_of_spreadsheets(tmp_path):
    path = _tsv(tmp_path / "MMBench.tsv", [_choice(5, _base64())])
    before = _spec(tmp_path, "tsv:MMBench.tsv").samples[0]
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert _said(_spec(tmp_path, "tsv:MMBench.tsv").samples[0]) == _said(before)


@pytest.mark.parametrize(
    ("name", "task", "answer", "references"),
    [
        ("POPE", "pope", "Yes", ("yes",)),
        ("TextVQA_VAL", "vqa", "['nokia', \"it's\"]", ("nokia", "it's")),
        ("GQA_TestDev_Balanced", "vqa", "left", ("left",)),
        ("COCO_VAL", "captioning", "['a dog', 'dogs']", ("a dog", "dogs")),
    ],
)
def test_other_tsv_files_are_known_by_their_names(tmp_path, name, task, answer, references):
    row = {"index": 0, "image": _base64(), "question": "q?", "answer": answer, "category": "c"}
    if task == "captioning":
        del row["question"]
    _tsv(tmp_path / f"{name}.tsv", [row, {**row, "index": 1}])
    dataset = _spec(tmp_path, f"tsv:{name}.tsv", task)
    assert dataset.samples[0].references == references
    assert dataset.scoring == ("exact" if name.startswith("GQA") else "annotators")
    assert _fits(task, dataset)


def test_a_tsv_file_of_another_name_needs_a_map_or_columns(tmp_path):
    _tsv(tmp_path / "mine.tsv", [_choice(5, _base64())])
    refused(lambda: parse("tsv:mine.tsv", tmp_path, {}), "called like no known file", "vlmevalkit-choices")
    assert len(_spec(tmp_path, "tsv:mine.tsv?column_map=vlmevalkit-choices").samples) == 1
    own = "tsv:mine.tsv?choices=A,B,C&answer=answer&image_text=base64&id=index"
    assert _spec(tmp_path, own).samples[0].choices == ("red", "None")
    refused(lambda: _spec(tmp_path, "tsv:mine.tsv?column_map=vlmevalkit-choice"), "did you mean 'vlmevalkit-choices'")


# ---- Bad cells -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"answer": ""}, ["row 0", "no answer to score against"]),
        ({"answer": "E"}, ["answer 'E' names none of its 2 choices"]),
        ({"A": "", "B": ""}, ["choices must be 2 to 5 texts"]),
        ({"A": ""}, ["choices must be 2 to 5 texts"]),
    ],
)
def test_a_row_that_cannot_be_scored_is_refused(tmp_path, changes, words):
    _tsv(tmp_path / "MMBench.tsv", [_choice(5, _base64(), **changes)])
    refused(lambda: _spec(tmp_path, "tsv:MMBench.tsv"), *words)


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("no base64 at all, but long enough that it cannot be an index of a row", ["row 0", "no image in base64"]),
        (f"['{_base64()}', '{_base64()}']", ["holds 2 images"]),
        (base64.b64encode(b"<html>" * 20).decode(), ["is not an image"]),
        ("9", ["no image in base64"]),
    ],
)
def test_a_cell_that_holds_no_image_is_refused(tmp_path, cell, words):
    _tsv(tmp_path / "MMBench.tsv", [_choice(5, cell)])
    refused(lambda: open_image(_spec(tmp_path, "tsv:MMBench.tsv").samples[0].image), *words)


def test_an_image_beyond_all_sizes_is_refused(tmp_path, monkeypatch):
    _tsv(tmp_path / "MMBench.tsv", [_choice(5, "data:image/png;base64," + _base64())])
    sample = _spec(tmp_path, "tsv:MMBench.tsv").samples[0]
    assert open_image(sample.image).size == (40, 30)
    monkeypatch.setattr("bench.data.hub.LARGEST", 9)
    refused(lambda: open_image(sample.image), "characters; an image file has at most 9 bytes")
    monkeypatch.undo()
    monkeypatch.setattr("bench.data.images.LARGEST", 9)
    refused(lambda: open_image(sample.image), "bytes; an image file has at most 9")


def test_a_map_whose_optional_column_is_missing_says_so(tmp_path):
    columns = {key: value for key, value in TABLES["pope"].items() if key != "image_source"}
    parquet(tmp_path / "t.parquet", columns, image=datasets.Image())
    dataset = _read(tmp_path, "pope")
    assert dataset.samples[0].group == "0"
    assert dataset.notes == ("there is no column 'image_source', so no image_id",)
    parquet(tmp_path / "u.parquet", {key: v for key, v in columns.items() if key != "answer"}, image=datasets.Image())
    refused(lambda: _read(tmp_path, "pope", "u.parquet"), "unknown column", "'answer'")
    parquet(tmp_path / "v.parquet", {**columns, "answer": ["yes", "maybe", "no"]}, image=datasets.Image())
    refused(lambda: _read(tmp_path, "pope", "v.parquet"), "row 1", "must be yes or no")
