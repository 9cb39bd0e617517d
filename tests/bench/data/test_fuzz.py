"""Every reader on damaged inputs: a right result, or one error that names the file. Never anything else."""

import io
import json
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data.images import open_image
from bench.data.readers import load
from bench.data.specs import parse
from bench.errors import UsageError
from tasks.base import Dataset
from tests.bench.data.mutations import VALUES, damaged_bytes, damaged_json, damaged_value
from tests.bench.data.small import entry, make_karpathy, make_vqa, make_wds, noise, png, stored, write

Damage = Callable[[bytes, random.Random], bytes]
SOME, MANY = 100, 2000
DEFAULTS = {"prompt": "describe", "max_new_tokens": 5}


class Format(NamedTuple):
    """A valid small dataset, what may happen to which of its files, and the place that names it."""

    make: Callable[[Path], object]
    place: str
    damage: Mapping[str, Damage]


def _vqa(root: Path) -> None:
    make_vqa(root)
    write(root / "val2014/COCO_val2014_000000000007.png", png())


def _karpathy(root: Path) -> None:
    make_karpathy(root, [entry(1), entry(2, captions=("a", "b")), entry(3, split="val")])
    for number in (1, 2):
        write(root / f"coco/val2014/COCO_val2014_{number:012d}.jpg", png())


def _coco(root: Path) -> None:
    _karpathy(root)
    captions = [{"image_id": number, "id": number, "caption": f"c{number}"} for number in (1, 2)]
    write(root / "captions.json", {"annotations": captions})


def _folders(root: Path) -> None:
    for path in ("cat/a.png", "cat/b.webp", "hot_dog/c.jpeg", "hot_dog/d.gif"):
        write(root / path, noise(path.rpartition(".")[2]))
    write(root / "classnames.txt", b"cat\tcat\nhot_dog\thot dog\n")
    write(root / "zeroshot_classification_templates.txt", b"a {c}\n")


def _pope(root: Path) -> None:
    lines = [
        {"question_id": k, "image": f"{k}.png", "text": f"q{k}?", "label": answer}
        for k, answer in ((1, "yes"), (2, "no"))
    ]
    write(root / "coco_pope.json", "\n".join(map(json.dumps, lines)).encode())
    for number in (1, 2):
        write(root / f"images/{number}.png", png())


def _scienceqa(root: Path) -> None:
    problem = {
        "question": "q?",
        "choices": ["a", "b"],
        "answer": 1,
        "hint": "h",
        "image": "image.png",
        "grade": "grade2",
        "subject": "natural science",
    }
    write(root / "problems.json", {str(number): problem for number in (1, 2, 3)})
    write(root / "pid_splits.json", {"test": ["1", "2"], "train": ["3"]})
    for number in (1, 2):
        write(root / f"images/test/{number}/image.png", png())


def _damaged_lines(content: bytes, rng: random.Random) -> bytes:
    """JSON lines of which one is damaged."""
    lines = content.split(b"\n")
    number = rng.randrange(len(lines))
    return b"\n".join([*lines[:number], damaged_json(lines[number], rng), *lines[number + 1 :]])


CELLS = {
    "id": [1, 2],
    "image": [png(), png()],
    "question": ["a?", "b?"],
    "answers": [["yes", "no"], ["x", "y"]],
}


def _parquet(root: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table(CELLS), root / "t.parquet")


def _damaged_table(content: bytes, rng: random.Random) -> bytes:
    """Bytes that are no parquet file, or a table whose columns hold other things."""
    if rng.random() < 0.4:
        return damaged_bytes(content, rng)
    cells = {
        column: [rng.choice(VALUES + CELLS[column]) for _ in values] if rng.random() < 0.4 else values
        for column, values in CELLS.items()
        if rng.random() < 0.95
    }
    if rng.random() < 0.3:
        cells["answers"] = [rng.choice(["['a', 'b']", '["a"]', "['a' 'b']", "[1]", "[so]", "('a',)"]) for _ in range(2)]
    buffer = io.BytesIO()
    try:
        pyarrow.parquet.write_table(pyarrow.table(cells), buffer)
    except (pyarrow.ArrowException, TypeError, ValueError, OverflowError, UnicodeEncodeError):
        return damaged_bytes(content, rng)
    return buffer.getvalue()


ROW = {
    "format": "vqa",
    "annotations": "v2_mscoco_val2014_annotations.json",
    "questions": "v2_OpenEnded_mscoco_val2014_questions.json",
    "images": "val2014",
    "max_new_tokens": 5,
    "samples": 2,
    "name": "mine",
}


def _row(root: Path) -> None:
    _vqa(root)
    write(root / "row.toml", _toml(ROW))


def _toml(row: Mapping[str, object]) -> bytes:
    lines = [f"{json.dumps(key)} = {json.dumps(value)}" for key, value in row.items()]
    return "\n".join(lines).encode(errors="surrogatepass")


def _damaged_row(content: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.4:
        return damaged_bytes(content, rng)
    changed = damaged_value(ROW, rng)
    return _toml(changed) if isinstance(changed, dict) else b"1"


FORMATS = {
    "vqa": Format(_vqa, "vqa:{}", dict.fromkeys((ROW["questions"], ROW["annotations"]), damaged_json)),
    "karpathy": Format(
        _karpathy, "karpathy:{}?annotations=dataset_coco.json&images=coco", {"dataset_coco.json": damaged_json}
    ),
    "coco": Format(
        _coco,
        "karpathy:{}?annotations=dataset_coco.json&images=coco&references=captions.json",
        {"captions.json": damaged_json, "dataset_coco.json": damaged_json},
    ),
    "pope": Format(_pope, "pope:{}", {"coco_pope.json": _damaged_lines}),
    "scienceqa": Format(_scienceqa, "scienceqa:{}", dict.fromkeys(("problems.json", "pid_splits.json"), damaged_json)),
    "tar": Format(
        make_wds,
        "webdataset:{}/wds_toy",
        {
            f"wds_toy/{path}": damaged_bytes
            for path in (
                "test/0.tar",
                "test/0.tar",
                "classnames.txt",
                "zeroshot_classification_templates.txt",
                "test/nshards.txt",
            )
        },
    ),
    "folders": Format(
        _folders,
        "imagefolder:{}",
        dict.fromkeys(
            (
                "cat/a.png",
                "cat/b.webp",
                "hot_dog/c.jpeg",
                "hot_dog/d.gif",
                "classnames.txt",
                "zeroshot_classification_templates.txt",
            ),
            damaged_bytes,
        ),
    ),
    "parquet": Format(_parquet, "parquet:{}/t.parquet", {"t.parquet": _damaged_table}),
    "toml": Format(_row, "{}/row.toml", {"row.toml": _damaged_row}),
}


def _sound(dataset: Dataset, root: Path | None) -> None:
    """What holds of every dataset that was read; its images lie under ``root``, if that is given."""
    assert dataset.samples
    assert len({sample.id for sample in dataset.samples}) == len(dataset.samples)
    for sample in dataset.samples:
        for text in (sample.id, sample.prompt, sample.group, *sample.references):
            assert isinstance(text, str)
            text.encode()
        assert sample.references
        if dataset.classnames:
            assert 0 <= sample.label < len(dataset.classnames)
        if isinstance(sample.image, Path) and root is not None:
            assert sample.image.resolve().is_relative_to(root.resolve())
        with _naming("damaged-", "t.parquet", "/etc/passwd"):
            assert open_image(sample.image).mode == "RGB"


@contextmanager
def _naming(*files: str) -> Iterator[None]:
    """Whatever is raised inside is one error that names one of these."""
    try:
        yield
    except UsageError as error:
        message = str(error)
        if not any(file in message for file in files):
            pytest.fail(f"names no file: {message}")


def _carry_out(form: Format, seed: int) -> None:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="damaged-") as folder:
        root = Path(folder)
        form.make(root)
        path = rng.choice(list(form.damage))
        (root / path).write_bytes(form.damage[path]((root / path).read_bytes(), rng))
        with _naming(root.name, "t.parquet", "/etc/passwd"):
            place = parse(form.place.format(root), None, DEFAULTS)
            _sound(load(place.name, place.row, place.root), None if form.place.endswith(".toml") else root)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("cache")
    datasets.disable_progress_bars()
    yield
    datasets.config.HF_DATASETS_CACHE = before


@pytest.mark.parametrize("name", FORMATS)
def test_a_whole_dataset_reads(name, tmp_path):
    FORMATS[name].make(tmp_path)
    place = parse(FORMATS[name].place.format(tmp_path), None, DEFAULTS)
    dataset = load(place.name, place.row, place.root)
    _sound(dataset, tmp_path)
    assert len(dataset.samples) == (4 if name == "folders" else 1 if name == "tar" else 2)


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=SOME, deadline=None, derandomize=True, database=None)
@given(seed=st.integers(0, 2**32))
def test_a_damaged_dataset_is_read_or_named(name, seed):
    _carry_out(FORMATS[name], seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=MANY, deadline=None, database=None)
@given(seed=st.integers(0, 2**32))
def test_many_damaged_datasets_are_read_or_named(name, seed):
    _carry_out(FORMATS[name], seed)


IMAGES = [
    "RGB png",
    "RGB jpeg",
    "RGB webp",
    "L gif",
    "RGB tiff",
    "CMYK jpeg",
    "RGBA png",
    "LA png",
    "RGB bmp",
    "RGB ppm",
]


def _open_damaged(seed: int) -> None:
    rng = random.Random(seed)
    mode, kind = rng.choice(IMAGES).split()
    content = noise(kind, mode, (8, 8))
    for _ in range(rng.choice([1, 1, 2, 3])):
        content = damaged_bytes(content, rng)
    with _naming("the-file"):
        assert open_image(stored("the-file", content)).mode == "RGB"


@settings(max_examples=SOME, deadline=None, derandomize=True, database=None)
@given(seed=st.integers(0, 2**32))
def test_a_damaged_image_is_decoded_or_named(seed):
    _open_damaged(seed)


@pytest.mark.slow
@settings(max_examples=MANY, deadline=None, database=None)
@given(seed=st.integers(0, 2**32))
def test_many_damaged_images_are_decoded_or_named(seed):
    _open_damaged(seed)
