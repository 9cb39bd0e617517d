"""Training images: sources, deterministic order, a place to come back to, images that cannot be read."""

import io
import json
import tarfile
import time

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import to_tensor

from bench.errors import UsageError
from bench.train.distributed import World
from bench.train.sources import IndexedSource, open_source
from bench.train.stream import ImageStream, skipped_names


def _png(number):
    """A flat image whose grey level is its number."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), number, dtype=np.uint8)).save(buffer, format="png")
    return buffer.getvalue()


@pytest.fixture(name="folder")
def _folder(tmp_path):
    for number in range(20):
        path = tmp_path / "data" / ("cat" if number % 2 else "dog") / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_png(number))
    return tmp_path / "data"


def _shards(tmp_path, per_shard=10, shards=2):
    for shard in range(shards):
        with tarfile.open(tmp_path / f"{shard:03}.tar", "w") as tar:
            for number in range(shard * per_shard, (shard + 1) * per_shard):
                for suffix, content in (("png", _png(number)), ("cls", str(number % 3).encode())):
                    entry = tarfile.TarInfo(f"{number:04}.{suffix}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
    return f"webdataset:{tmp_path}/{{000..{shards - 1:03}}}.tar"


def _levels(batch):
    """Which images a batch holds."""
    return (batch.images[:, 0, 0, 0] * 255).round().int().tolist()


def _take(stream, count, first=0):
    return [_levels(stream(first + step)) for step in range(count)]


def _flat(batches):
    return [level for batch in batches for level in batch]


def _sources(folder, tmp_path):
    data = datasets.Dataset.from_dict(
        {"image": [{"bytes": _png(i), "path": None} for i in range(20)], "label": [i % 2 for i in range(20)]},
        features=datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["dog", "cat"])}),
    )
    data.save_to_disk(str(tmp_path / "saved"))
    return [f"imagefolder:{folder}", f"folder:{folder}", _shards(tmp_path), f"hf:{tmp_path}/saved"]


def test_every_kind_of_source_gives_each_image_once_an_epoch(folder, tmp_path):
    for spec in _sources(folder, tmp_path):
        source = open_source(spec)
        stream = ImageStream(source, to_tensor, 5, seed=3)
        first, second = (_flat(_take(stream, 4)) for _ in range(2))
        assert sorted(first) == sorted(second) == list(range(20)), spec
        assert first != second, spec
        assert first != sorted(first), spec
        again = _flat(_take(ImageStream(open_source(spec), to_tensor, 5, seed=3), 4))
        other = _flat(_take(ImageStream(open_source(spec), to_tensor, 5, seed=4), 4))
        assert again == first != other, spec


def test_labels_come_from_folders_cls_files_and_features(folder, tmp_path):
    kinds = _sources(folder, tmp_path)
    for spec, classes, period in [(kinds[0], ("cat", "dog"), -2), (kinds[2], None, 3), (kinds[3], ("dog", "cat"), 2)]:
        source = open_source(spec)
        assert source.classes == classes
        batch = ImageStream(source, to_tensor, 8)(0)
        expected = [1 - n % 2 if period == -2 else n % period for n in _levels(batch)]
        assert batch.labels.tolist() == expected
    assert ImageStream(open_source(kinds[1]), to_tensor, 8)(0).labels is None


@pytest.mark.parametrize("kind", ["folder", "webdataset"])
def test_a_stream_comes_back_to_its_place_in_any_epoch(folder, tmp_path, kind):
    spec = f"folder:{folder}" if kind == "folder" else _shards(tmp_path)
    whole = _take(ImageStream(open_source(spec), to_tensor, 6, seed=1), 8)  # 3 batches an epoch
    for stop in (1, 3, 4):
        before = ImageStream(open_source(spec), to_tensor, 6, seed=1)
        _take(before, stop)
        after = ImageStream(open_source(spec), to_tensor, 6, seed=1)
        after.load_state_dict(json.loads(json.dumps(before.state_dict())))
        assert _take(after, 8 - stop, stop) == whole[stop:]


@pytest.mark.parametrize("kind", ["folder", "webdataset"])
def test_processes_share_the_batches_of_one(folder, tmp_path, kind):
    spec = f"folder:{folder}" if kind == "folder" else _shards(tmp_path)
    (folder / "dog" / "04.png").write_bytes(b"broken")
    alone = _take(ImageStream(open_source(spec), to_tensor, 6, seed=1), 5)
    parts = [_take(ImageStream(open_source(spec), to_tensor, 6, seed=1, world=World(r, 2)), 5) for r in (0, 1)]
    assert [a + b for a, b in zip(*parts, strict=True)] == alone


def test_unreadable_images_are_skipped_counted_and_named(folder, tmp_path):
    whole = (folder / "cat" / "03.png").read_bytes()
    (folder / "cat" / "03.png").write_bytes(b"<html>not an image</html>")
    (folder / "dog" / "06.png").write_bytes(whole[: len(whole) // 2])  # truncated
    (folder / "dog" / "08.png").write_bytes(b"")
    stream = ImageStream(open_source(f"folder:{folder}"), to_tensor, 10, skipped_file=tmp_path / "skipped.jsonl")
    batches = _take(stream, 4)
    assert all(len(batch) == 10 for batch in batches)
    bad = {"cat/03.png", "dog/06.png", "dog/08.png"}
    assert stream.skipped.keys() == bad
    assert stream.skipped["cat/03.png"].startswith("cat/03.png is not an image")
    assert {json.loads(line)["id"] for line in (tmp_path / "skipped.jsonl").read_text().splitlines()} == bad
    assert sorted(set(_flat(batches))) == [n for n in range(20) if n not in (3, 6, 8)]


def test_an_unreadable_image_is_named_once_over_crashes_and_processes(folder, tmp_path):
    (folder / "cat" / "03.png").write_bytes(b"junk")
    names = tmp_path / "skipped.jsonl"

    def stream(rank=0, size=1):
        return ImageStream(open_source(f"folder:{folder}"), to_tensor, 10, world=World(rank, size), skipped_file=names)

    _take(stream(), 2)
    names.write_text(names.read_text() + '{"id": "cut sho')  # a crash
    _take(stream(), 2)
    _take(stream(1, 2), 2)
    assert skipped_names(names) == {"cat/03.png"}
    assert names.read_text().count('"id": "cat/03.png"') == 1
    assert skipped_names(tmp_path / "none") == set()


def _table(tmp_path, **columns):
    features = {name: datasets.Image() if name == "picture" else datasets.Value("int64") for name in columns}
    data = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    data.to_parquet(str(tmp_path / "train.parquet"))
    return f"hf:{tmp_path}"


def test_columns_of_a_hugging_face_dataset_by_name(tmp_path):
    """Local parquet, numbered labels without names; a row without an image is skipped."""
    pictures = [None if i == 2 else {"bytes": _png(i), "path": None} for i in range(8)]
    spec = _table(tmp_path, picture=pictures, kind=[i % 3 for i in range(8)])
    stream = ImageStream(open_source(f"{spec}?image=picture&label=kind"), to_tensor, 8)
    batch = stream(0)
    assert batch.labels.tolist() == [level % 3 for level in _levels(batch)]
    assert ["row 2, column 'picture' holds no image" in reason for reason in stream.skipped.values()] == [True]
    assert open_source(f"{spec}?image=picture").item(0).label is None
    for query, message in [
        ("", "no column 'image'; there are picture, kind"),
        ("?image=picture&label=no", "no column 'no'"),
        ("?image=picture&spilt=train", "unknown option 'spilt'; there are split, config, image, label"),
    ]:
        with pytest.raises(UsageError, match=message):
            open_source(spec + query)


def test_a_class_that_is_no_number_is_named(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for suffix, content in (("png", _png(1)), ("cls", b"dog")):
            entry = tarfile.TarInfo(f"a.{suffix}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    with pytest.raises(UsageError, match=r"0\.tar/a\.cls is not the number of a class: 'dog'"):
        ImageStream(open_source(f"webdataset:{tmp_path}/0.tar"), to_tensor, 1)(0)


def test_a_batch_without_one_readable_image_stops_the_run(folder):
    for path in folder.rglob("*.png"):
        path.write_bytes(b"junk")
    with pytest.raises(UsageError, match="none of the 10 images of a batch can be read"):
        ImageStream(open_source(f"folder:{folder}"), to_tensor, 10)(0)


def test_a_damaged_shard_stops_the_run_and_is_named(tmp_path):
    spec = _shards(tmp_path)
    content = (tmp_path / "001.tar").read_bytes()
    (tmp_path / "001.tar").write_bytes(content[:3000])
    with pytest.raises(UsageError, match=r"a shard cannot be read: .*001\.tar"):
        _take(ImageStream(open_source(spec), to_tensor, 4), 10)


def test_held_out_images_are_never_trained_on(folder):
    source = open_source(f"folder:{folder}")
    assert isinstance(source, IndexedSource)
    rest, held_out = source.split(4, seed=0)
    trained = _flat(_take(ImageStream(rest, to_tensor, 4), 8))
    names = {int(raw.id[-6:-4]) for raw in held_out}
    assert len(names) == 4
    assert set(trained) == set(range(20)) - names


def test_decoding_runs_ahead_of_the_step(folder):
    """While a step computes, the next batches are decoded: the wait is far below the time that decoding takes."""

    def slow(image):
        time.sleep(0.02)
        return to_tensor(image)

    stream = ImageStream(open_source(f"folder:{folder}"), slow, 4, threads=4)
    stream(0)
    time.sleep(0.3)
    before = time.monotonic()
    stream(1)
    assert time.monotonic() - before < 0.04  # 4 images, one after another, take 0.08 s


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere", "is not one of imagefolder:DIR"),
        ("tar:/x", "is not one of"),
        ("folder:/no/such/place", "no such folder: '/no/such/place'"),
        ("webdataset:/no/{00..03}.tar", r"4 of 4 shards are missing, e\.g\. /no/00\.tar"),
        ("webdataset:/no/*.tar", "no shard of that name"),
        ("hf:/no/such/dataset", "no file or folder /no/such/dataset, .* get it with `hf download"),
    ],
)
def test_a_source_that_is_not_there_is_named(spec, message):
    with pytest.raises(UsageError, match=message):
        open_source(spec)


def test_too_few_images_and_empty_folders_are_named(folder, tmp_path):
    with pytest.raises(UsageError, match="has 20 images to train on, fewer than one batch of 32"):
        ImageStream(open_source(f"folder:{folder}"), to_tensor, 32)
    with pytest.raises(UsageError, match="does not fill one batch of 32"):
        ImageStream(open_source(_shards(tmp_path)), to_tensor, 32)(0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no images"):
        open_source(f"folder:{tmp_path / 'empty'}")
    with pytest.raises(UsageError, match="no subfolder for each class; use folder:"):
        open_source(f"imagefolder:{tmp_path / 'empty'}")
    with pytest.raises(UsageError, match="cannot be shared by 3 processes"):
        ImageStream(open_source(f"folder:{folder}"), to_tensor, 4, world=World(0, 3))


def test_the_fingerprint_changes_with_the_images(folder):
    before = open_source(f"folder:{folder}").fingerprint
    (folder / "cat" / "01.png").unlink()
    assert open_source(f"folder:{folder}").fingerprint != before
    assert torch.is_tensor(ImageStream(open_source(f"folder:{folder}"), to_tensor, 2)(0).images)
