"""Training images: what is read by the rules of evaluation, what is refused, and what is counted as lost."""

import io
import json
import os
import subprocess
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import to_tensor

from bench.data.images import open_image
from bench.errors import UsageError
from bench.train.sources import open_source
from bench.train.stream import ImageStream
from tests.bench.train.commands import invoke, train_command
from tests.bench.train.test_data import _png


def _tar(path, files):
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return f"webdataset:{path}"


@pytest.mark.parametrize(
    "pattern",
    [
        "pipe:touch {mark}",
        "PIPE:touch {mark}",
        " pipe:touch {mark}",
        "{tar}::pipe:touch {mark}",
        "file://{tar}",
        "http://localhost/'; touch {mark}; '",
        "s3://bucket/0.tar",
    ],
)
def test_a_shard_is_a_file_and_never_a_command(tmp_path, images, pattern, monkeypatch):
    """The library would run each of these but the fifth in a shell."""
    ran = []
    for name in ("Popen", "call", "run", "check_call"):
        monkeypatch.setattr(subprocess, name, lambda *words, **more: ran.append(words))
    monkeypatch.setattr(os, "system", ran.append)
    _tar(tmp_path / "0.tar", {"a.png": _png(1)})
    words = train_command(images, tmp_path / "out")
    words[words.index(f"imagefolder:{images}")] = "webdataset:" + pattern.format(
        mark=tmp_path / "mark", tar=tmp_path / "0.tar"
    )
    done = invoke(words)
    assert done.exit_code == 2, done.output
    assert "is a command or an address, and only files are read" in done.output
    assert not (tmp_path / "mark").exists()
    assert ran == []


def test_a_name_that_looks_like_a_command_is_no_more_than_a_file(tmp_path, monkeypatch):
    """A glob finds it; the library gets an open file, never this name."""
    monkeypatch.chdir(tmp_path)
    _tar(tmp_path / "pipe:touch mark.tar", {f"{n}.png": _png(n) for n in range(4)})
    batch = ImageStream(open_source(f"webdataset:{tmp_path}/*mark.tar"), to_tensor, 4)(0)
    assert sorted((batch.images[:, 0, 0, 0] * 255).round().int().tolist()) == [0, 1, 2, 3]
    assert not (tmp_path / "mark.tar").exists()


def _skipped(spec, size, taken=1):
    stream = ImageStream(open_source(spec), to_tensor, size)
    for step in range(taken):
        stream(step)
    return stream.skipped


def test_samples_whose_key_has_a_dot_or_that_have_no_image_are_counted_and_named(tmp_path):
    files = {f"{n}.png": _png(n) for n in range(5)}
    files |= {
        "photo.1.png": _png(7),
        "photo.1.cls": b"1",
        "photo.2.png": _png(8),
        "notes.txt": b"no image",
        "a.heic": b"x",
    }
    found = _skipped(_tar(tmp_path / "0.tar", files), 9)
    assert found.keys() == {"0.tar/photo.1.png", "0.tar/photo.2.png", "0.tar/notes", "0.tar/a"}
    assert "a key ends at the first dot" in found["0.tar/photo.1.png"]
    assert "0.tar/notes has no image (.jpg, .jpeg" in found["0.tar/notes"]
    with pytest.raises(
        UsageError, match=r"none of the 2 images of a batch can be read: .* a key ends at the first dot"
    ):
        _skipped(_tar(tmp_path / "1.tar", {"a.1.png": _png(1), "b.1.png": _png(2)}), 2)


def test_more_files_beside_an_image_are_no_images_lost(tmp_path):
    """As img2dataset and others write: captions, metadata, masks."""
    files = {}
    for n in range(3):
        files |= {f"{n}.jpg": _png(n), f"{n}.txt": b"words", f"{n}.mask.png": _png(9)}
    assert _skipped(_tar(tmp_path / "0.tar", files), 3) == {}


def test_what_a_mac_adds_to_an_archive_is_no_image_and_no_class(tmp_path, capsys):
    for name in ("circle/a.png", "square/b.png", "__MACOSX/circle/._a.png", "circle/._a.png", "circle/__MACOSX/x.png"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_png(1))
    (tmp_path / "data" / "oval").mkdir()
    (tmp_path / "data" / "square" / "c.heic").write_bytes(b"x")
    labelled, plain = (open_source(f"{kind}:{tmp_path / 'data'}") for kind in ("imagefolder", "folder"))
    assert labelled.classes == ("circle", "oval", "square")
    for source in (labelled, plain):
        assert [source.item(row).id for row in range(len(source))] == ["circle/a.png", "square/b.png"]
    said = capsys.readouterr().err
    assert "the class 'oval' has no images; remove the folder" in said
    assert "1 images, such as" in said
    spec = _tar(
        tmp_path / "0.tar", {"__MACOSX/._a.png": b"junk", "._a.png": b"junk", "a.png": _png(1), "b.png": _png(2)}
    )
    assert _skipped(spec, 2) == {}


def test_a_shard_that_was_cut_between_two_files_is_refused(tmp_path):
    """A reader takes that for its end, and the rest would be lost without a word."""
    spec = _tar(tmp_path / "0.tar", {f"{n}.png": _png(n) for n in range(4)})
    content = (tmp_path / "0.tar").read_bytes()
    (tmp_path / "0.tar").write_bytes(content[: 2 * 1024])  # two files of a header and a block each
    with pytest.raises(UsageError, match=r"0\.tar does not end as a tar file does; download it again"):
        open_source(spec)


def test_a_sample_of_a_file_twice_is_named_with_its_shard(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for _ in range(2):
            entry = tarfile.TarInfo("a.png")
            entry.size = len(_png(1))
            tar.addfile(entry, io.BytesIO(_png(1)))
    with pytest.raises(UsageError, match=r"a shard cannot be read: .*0\.tar: a\.png: duplicate file name"):
        _skipped(f"webdataset:{tmp_path}/0.tar", 1)


def _variants(folder):
    """The same gradient in files of many kinds, and those that must be refused."""
    grey = np.linspace(0, 1, 64, dtype=np.float64).reshape(8, 8)
    sixteen = Image.fromarray((grey * 65535).round().astype(np.uint16))
    eight = Image.fromarray((grey * 255).round().astype(np.uint8))
    rgb = Image.merge("RGB", [eight, eight.rotate(90), eight.rotate(180)])
    exif = Image.Exif()
    exif[0x0112] = 6
    sixteen.save(folder / "sixteen.png")
    eight.save(folder / "eight.png")
    eight.point(lambda value: 255 * (value > 100), "1").save(folder / "one.png")
    eight.convert("LA").save(folder / "la.png")
    rgb.convert("P").save(folder / "palette.png")
    rgb.convert("CMYK").save(folder / "cmyk.jpg")
    rgb.save(folder / "turned.jpg", exif=exif)
    rgb.save(folder / "plain.webp", lossless=True)
    rgb.save(folder / "moving.gif", save_all=True, append_images=[rgb.rotate(90)])
    Image.fromarray(grey.astype(np.float32)).save(folder / "float.tif")
    Image.fromarray((grey * 2**30).astype(np.int32)).save(folder / "int32.tif")


def test_pixels_are_those_of_evaluation_or_the_image_is_refused(tmp_path):
    _variants(tmp_path)
    source = open_source(f"folder:{tmp_path}")
    stream = ImageStream(source, to_tensor, len(source))
    found = {raw.id: image for image, raw in stream.readable([source.item(row) for row in range(len(source))])}
    assert stream.skipped.keys() == {"float.tif", "int32.tif"}
    assert all("whose range is not known" in reason for reason in stream.skipped.values())
    for name, image in found.items():
        assert torch.equal(image, to_tensor(open_image(tmp_path / name))), name
    assert found["sixteen.png"].mean() == pytest.approx(0.5, abs=0.003)
    assert torch.equal(found["sixteen.png"], found["eight.png"])


def test_photographs_are_turned_as_in_evaluation_unless_the_flaw_is_asked_for(tmp_path):
    _variants(tmp_path)
    pixels = []
    for upright in (True, False):
        stream = ImageStream(open_source(f"folder:{tmp_path}"), to_tensor, 4, upright=upright)
        ((image, _),) = stream.readable([raw for raw in map(stream._source.item, range(11)) if raw.id == "turned.jpg"])
        pixels.append(image)
    assert torch.equal(pixels[0], pixels[1].rot90(-1, (1, 2)))


def test_a_name_that_is_no_text_is_spelled_out(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(_png(1))
    source = open_source(f"folder:{tmp_path}")
    assert source.item(0).id == "caf\\xe9.png"
    json.dumps(source.fingerprint).encode()


def test_a_name_after_a_torn_line_gets_a_line_of_its_own(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for n in range(4):
        (folder / f"{n}.png").write_bytes(_png(n) if n else b"junk")
    names = tmp_path / "skipped.jsonl"
    names.write_text('{"id": "cut sho')
    ImageStream(open_source(f"folder:{folder}"), to_tensor, 4, skipped_file=names)(0)
    assert [json.loads(line)["id"] for line in names.read_text().splitlines()[1:]] == ["0.png"]
