"""What a table may reach: files of its own folder, nothing on the network, no code."""

import datasets
import pytest

from bench.data import hub
from bench.data.images import open_image
from tests.bench.data.small import png, refused
from tests.bench.data.tables import PICTURES, parquet, table

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.mark.parametrize("name", ["../outside.png", "/etc/passwd", "{}/outside.png", "a/../../outside.png"])
def test_an_image_outside_the_tables_folder_is_refused(tmp_path, name):
    (tmp_path / "outside.png").write_bytes(png())
    rows = {"image": [{"bytes": None, "path": name.format(tmp_path)}], "label": ["a"]}
    parquet(tmp_path / "in" / "t.parquet", rows)
    sample = table(tmp_path / "in").samples[0]
    refused(
        lambda: open_image(sample.image), "t.parquet, row 0, column 'image'", "outside.png" if "out" in name else name
    )


def test_an_image_beside_its_table_is_read(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "1.png").write_bytes(png())
    parquet(tmp_path / "t.parquet", {"image": ["pictures/1.png"], "label": ["a"]})
    assert open_image(table(tmp_path).samples[0].image).size == (4, 3)


def test_a_folder_of_images_is_a_table_too(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "set" / "train" / name).mkdir(parents=True)
        (tmp_path / "set" / "train" / name / "1.png").write_bytes(png())
    dataset = table(tmp_path, source="set", split="train")
    assert dataset.classnames == ("cat", "dog")
    assert [open_image(sample.image).size for sample in dataset.samples] == [(4, 3)] * 2


def _bomb() -> str:
    """Nine lines that stand for a hundred million texts."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, 8)]
    return "\n".join([*lines, "configs:", "- config_name: default", "  data_files: *a7"])


@pytest.mark.parametrize("text", [_bomb(), "configs:\n- config_name: default\n  data_files: &a [*a]"])
def test_a_card_of_a_few_lines_that_stand_for_any_number_is_refused(tmp_path, text):
    (tmp_path / "README.md").write_text(f"---\n{text}\n---\n")
    refused(lambda: hub.check_folder(tmp_path), tmp_path / "README.md", "more than 1,000,000 values")


@pytest.mark.parametrize(
    "files",
    [
        "../secret.txt",
        "/etc/passwd",
        "http://127.0.0.1:9/x.csv",
        "hf://datasets/a/b/c.csv",
        "zip://x.csv::../a.zip",
        "[{split: test, path: ../secret.txt}]",
    ],
)
@pytest.mark.parametrize("card", ["README.md", ".huggingface.yaml"])
def test_a_card_that_names_files_outside_its_folder_is_refused(tmp_path, files, card):
    (tmp_path / "secret.txt").write_text("secret\n")
    folder = tmp_path / "set"
    folder.mkdir()
    text = f"configs:\n- config_name: default\n  data_files: {files}\n"
    (folder / card).write_text(f"---\n{text}---\n" if card == "README.md" else text)
    refused(lambda: table(tmp_path, source="set"), folder / card, "data_files")


def test_a_saved_dataset_is_read_whether_it_has_splits_or_not(tmp_path):
    rows = datasets.Dataset.from_dict({"image": PICTURES, "label": ["a", "b", "a"]}).cast_column(
        "image", datasets.Image()
    )
    rows.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"validation": rows}).save_to_disk(tmp_path / "several")
    for source in ("one", "several"):
        dataset = table(tmp_path, source=source, split="validation")
        assert [sample.references for sample in dataset.samples] == [("a",), ("b",), ("a",)]
        assert open_image(dataset.samples[2].image).getpixel((0, 0)) == (2, 0, 0)
    refused(lambda: table(tmp_path, source="several"), tmp_path / "several", "test", "check the file, split")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("state.json", '{"_data_files": [{"filename": "../outside.arrow"}]}'),
        ("state.json", '{"_data_files": [{"filename": "/etc/passwd"}]}'),
        ("dataset_dict.json", '{"splits": ["../several"]}'),
    ],
)
def test_a_saved_dataset_that_names_files_outside_its_folder_is_refused(tmp_path, file, text):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / file).write_text(text)
    refused(lambda: table(tmp_path, source="set"), tmp_path / "set" / file)


def _parts(folder, *names):
    for number, name in enumerate(names):
        parquet(folder / name, {"image": PICTURES[:1], "label": [str(number)]})


def test_a_split_of_which_a_file_is_missing_is_refused(tmp_path):
    """The library takes the files that are there for the whole."""
    _parts(tmp_path / "set" / "data", "test-00000-of-00003.parquet", "test-00002-of-00003.parquet")
    refused(lambda: table(tmp_path, source="set"), "set/data/test-00001-of-00003", "1 of 3 files", "download it")
    _parts(tmp_path / "set" / "data", "test-00001-of-00003.parquet")
    assert len(table(tmp_path, source="set").samples) == 3


def test_files_of_other_splits_may_be_missing(tmp_path):
    _parts(tmp_path / "set", "test-00000-of-00002-ab12.parquet", "test-00001-of-00002-cd34.parquet")
    _parts(tmp_path / "set", "testdev-00001-of-00002.parquet", "train-00003-of-00004.parquet")
    assert len(table(tmp_path, source="set").samples) == 2


def test_a_script_in_a_folder_is_not_run(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "set.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    refused(lambda: table(tmp_path, source="set"), tmp_path / "set", "cannot be loaded")
    assert not (tmp_path / "ran").exists()


def test_a_damaged_table_leaves_one_line(tmp_path, capfd):
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and no more")
    refused(lambda: table(tmp_path), tmp_path / "t.parquet", "cannot be loaded")
    assert capfd.readouterr().err == ""
