"""What training reads, damaged: the right result, or one error that names the file. Never anything else."""

import io
import random
import tempfile
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.functional import to_tensor

from bench.errors import UsageError
from bench.train import card
from bench.train.checkpoint import CHECKPOINT, Run
from bench.train.classes import class_names
from bench.train.log import keep_rows_before
from bench.train.sources import open_source
from bench.train.stream import ImageStream, skipped_names
from tests.bench.data.mutations import VALUES, damaged_bytes, damaged_value
from tests.bench.train.test_data import _png
from tests.bench.train.test_sources import _tar

SOME, MANY = 100, 2000


class _Place:
    """A place in the data that takes what `ImageStream` takes."""

    load_state_dict = ImageStream.load_state_dict

    def __init__(self):
        self._epoch = self._done = 0

    def _restart(self):
        pass

    def state_dict(self):
        return {"epoch": self._epoch, "batch": self._done}


def _run(folder):
    """A run of a small model whose optimizer has a memory, and its weights."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return Run(folder / CHECKPOINT, {"m": model}, optimizer, {"recipe": {"eps": 4}}, _Place()), model


def _damaged_state(content, rng):
    """Bytes that are no checkpoint, or a checkpoint of which one value is another."""
    if rng.random() < 0.5:
        return damaged_bytes(content, rng)
    state = torch.load(io.BytesIO(content), weights_only=True)
    buffer = io.BytesIO()
    try:
        torch.save(damaged_value(state, rng), buffer)
    except UnicodeEncodeError:  # half a surrogate pair
        return damaged_bytes(content, rng)
    return buffer.getvalue()


def _resume(root, rng):
    run, model = _run(root)
    run.recent.extend([1.0, 2.0])
    run.save(7)
    path = root / CHECKPOINT
    path.write_bytes(_damaged_state(path.read_bytes(), rng))
    again, _ = _run(root)
    again.modules["m"].weight.data.zero_()
    step = again.resume()
    assert isinstance(step, int)
    assert step >= 0
    assert torch.equal(again.modules["m"].weight, model.weight)
    again.optimizer.step()  # what was read can be gone on from
    assert all(isinstance(loss, float) for loss in again.recent)


@pytest.mark.parametrize(("key", "value"), [("step", -1.0), ("exp_avg_sq", -1e-9), ("exp_avg", float("nan"))])
def test_a_memory_that_cannot_be_gone_on_from_is_named(tmp_path, key, value):
    run, _ = _run(tmp_path)
    run.save(7)
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    state["optimizer"]["state"][0][key].fill_(value)
    torch.save(state, tmp_path / CHECKPOINT)
    with pytest.raises(UsageError, match=CHECKPOINT):
        _run(tmp_path)[0].resume()


def _read(root, spec, count=6):
    source = open_source(spec)
    stream = ImageStream(source, to_tensor, 2, threads=1)
    for step in range(count):
        batch = stream(step)
        assert batch.images.shape[0] == 2
        assert batch.images.isfinite().all()
    assert all(isinstance(name, str) and isinstance(reason, str) for name, reason in stream.skipped.items())
    stream.close()


def _shard(root, rng):
    files = {f"{n}.png": _png(n) for n in range(5)} | {f"{n}.cls": b"1" for n in range(5)}
    spec = _tar(root / "0.tar", dict(sorted(files.items())))
    path = root / "0.tar"
    path.write_bytes(damaged_bytes(path.read_bytes(), rng))
    _read(root, spec)


def _images(root, rng):
    for number in range(4):
        path = root / ("cat" if number % 2 else "dog") / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(damaged_bytes(_png(number), rng) if rng.random() < 0.4 else _png(number))
    _read(root, f"{rng.choice(['imagefolder', 'folder'])}:{root}")


def _some_other(values, rng):
    return [rng.choice([*VALUES, value]) if rng.random() < 0.4 else value for value in values]


def _table(root, rng):
    cells = {"image": [{"bytes": _png(n), "path": None} for n in range(4)], "label": [0, 1, 0, 1]}
    if rng.random() < 0.6:
        cells = {key: _some_other(values, rng) for key, values in cells.items() if rng.random() < 0.95}
    buffer = io.BytesIO()
    try:
        pyarrow.parquet.write_table(pyarrow.table(cells), buffer)
    except (pyarrow.ArrowException, TypeError, ValueError, OverflowError, UnicodeEncodeError):
        return
    content = buffer.getvalue()
    (root / "train.parquet").write_bytes(damaged_bytes(content, rng) if rng.random() < 0.3 else content)
    _read(root, f"hf:{root}")


def _names(root, rng):
    for name in ("cat", "dog"):
        (root / name).mkdir()
        (root / name / "0.png").write_bytes(_png(1))
    path = root / "names.txt"
    path.write_bytes(damaged_bytes(rng.choice([b"a cat\na dog\n", b"cat\ta cat\ndog\ta dog\n"]), rng))
    assert len(class_names("tecoa", open_source(f"imagefolder:{root}"), path)) == 2


def _left_by_a_crash(root, rng):
    """Lines of metrics and of skipped images: what cannot be read is as if it had not been written."""
    rows, names = (
        b'{"step": 0, "loss": 1.5, "rate": 1}\n{"step": 9, "loss": 1.0}\n',
        b'{"id": "a.png", "reason": "x"}\n',
    )
    (root / "metrics.jsonl").write_bytes(damaged_bytes(rows, rng))
    (root / "skipped.jsonl").write_bytes(damaged_bytes(names, rng))
    assert all(isinstance(name, str) for name in skipped_names(root / "skipped.jsonl"))
    keep_rows_before(5, root / "metrics.jsonl")
    assert all(row["step"] < 5 for row in card.read_metrics(root / "metrics.jsonl"))


READERS = {
    "checkpoint": _resume,
    "shard": _shard,
    "images": _images,
    "table": _table,
    "names": _names,
    "lines": _left_by_a_crash,
}


def _carry_out(name, seed):
    with tempfile.TemporaryDirectory(prefix="damaged-") as folder:
        try:
            READERS[name](Path(folder), random.Random(seed))
        except UsageError as error:
            message = str(error)
            assert "weights_only" not in message
            assert "damaged-" in message or ".png" in message or "0.tar/" in message, f"names no file: {message}"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("cache")
    yield
    datasets.config.HF_DATASETS_CACHE = before


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=SOME, deadline=None, derandomize=True, database=None)
@given(seed=st.integers(0, 2**32))
def test_what_is_damaged_is_read_or_named(name, seed):
    _carry_out(name, seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
@settings(max_examples=MANY, deadline=None, database=None)
@given(seed=st.integers(0, 2**32))
def test_much_that_is_damaged_is_read_or_named(name, seed):
    _carry_out(name, seed)


@settings(max_examples=SOME, deadline=None, derandomize=True, database=None)
@given(seed=st.integers(0, 2**32))
def test_any_words_in_place_of_a_source_open_it_or_are_refused(seed):
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="damaged-") as folder:
        root = Path(folder)
        _tar(root / "0.tar", {"a.png": _png(1)})
        parts = [
            "0.tar",
            "{",
            "}",
            "0..3",
            "*",
            "?",
            "split=",
            "&",
            "pipe:",
            "::",
            "\0",
            "~",
            ",",
            "-",
            "://",
            "[",
            "a",
        ]
        place = folder + rng.choice(["/", ""]) + "".join(rng.choice(parts) for _ in range(rng.choice([0, 1, 2, 3, 6])))
        spec = rng.choice(["imagefolder:", "folder:", "webdataset:", ""]) + place
        try:
            found = open_source(spec)
        except UsageError:
            return
        assert found.fingerprint
