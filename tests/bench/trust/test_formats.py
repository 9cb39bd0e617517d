"""Every dataset format on a planted name that leaves its folder: a format without a case here fails the test."""

from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from bench import registry
from bench.data.images import open_image
from bench.data.readers import load
from bench.data.specs import parse
from bench.errors import UsageError
from tests.bench.data.small import entry, make_vqa, make_wds, png, write

DEFAULTS = {"prompt": "describe", "max_new_tokens": 5}
OUTSIDE = "../secret.png"


def _karpathy(root: Path) -> None:
    write(root / "dataset_x.json", {"images": [entry(filepath="", filename=OUTSIDE)]})


def _pope(root: Path) -> None:
    write(root / "pope.json", {"question_id": 1, "image": OUTSIDE, "text": "?", "label": "yes"})
    write(root / "images/1.png", png())


def _scienceqa(root: Path) -> None:
    problem = {
        "question": "?",
        "choices": ["a", "b"],
        "answer": 0,
        "image": f"../../{OUTSIDE}",
        "hint": "",
        "lecture": "",
    }
    write(root / "problems.json", {"1": {**problem, "subject": "natural science", "grade": "grade1"}})
    write(root / "pid_splits.json", {"test": ["1"]})
    (root / "images").mkdir()


def _parquet(root: Path) -> None:
    cells = {"image": [{"bytes": None, "path": OUTSIDE}], "label": ["a"]}
    pyarrow.parquet.write_table(pyarrow.table(cells), root / "t.parquet")


def _tsv(root: Path) -> None:
    (root / "t.tsv").write_text(f"index\tquestion\timage_path\tanswer\n1\twhat?\t{OUTSIDE}\ta\n")


def _card(root: Path) -> None:
    (root / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files: {OUTSIDE}\n---\n")


def _saved(root: Path) -> None:
    write(root / "state.json", {"_data_files": [{"filename": OUTSIDE}]})


PLANTED: dict[str, list[tuple[Callable[[Path], object], str]]] = {
    "vqa": [(lambda root: make_vqa(root, image=OUTSIDE), "{}")],
    "karpathy": [(_karpathy, "{}")],
    "webdataset": [(lambda root: make_wds(root, [(OUTSIDE, png()), ("../secret.cls", b"0")]), "{}/wds_toy")],
    "pope": [(_pope, "{}")],
    "scienceqa": [(_scienceqa, "{}")],
    "table": [(_parquet, "{}/t.parquet"), (_card, "{}"), (_saved, "{}")],
    "parquet": [(_parquet, "{}/t.parquet")],
    "hf": [(_card, "{}"), (_saved, "{}")],
    "tsv": [(_tsv, "{}/t.tsv?image=image_path&image_text=path&question=question&answers=answer")],
}
NAMES_NO_FILES = {"imagefolder", "pairs", "mini"}  # two list what is there, the last has no files


def test_every_format_has_a_planted_case():
    assert PLANTED.keys() | NAMES_NO_FILES == registry.READERS.keys()


def _open_all(spec: str) -> None:
    found = parse(spec, None, DEFAULTS)
    for sample in load(found.name, found.row, found.root).samples:
        open_image(sample.image)


@pytest.mark.parametrize(("name", "number"), [(name, k) for name, cases in PLANTED.items() for k in range(len(cases))])
def test_no_format_reads_what_lies_outside_its_folder(name, number, tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    write(tmp_path / "secret.png", png())
    make, place = PLANTED[name][number]
    make(root)
    with pytest.raises(UsageError) as caught:
        _open_all(f"{name}:{place.format(root)}")
    message = str(caught.value)
    assert "secret" in message
    assert any(words in message for words in ("leaves", "not in the folder"))
