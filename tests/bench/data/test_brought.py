"""Images made elsewhere are read to the bit, or refused by name: nothing of a file is left out in silence."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from bench.data.brought import read_folder
from bench.errors import UsageError
from tasks.base import Sample

SAMPLE = Sample("s0", Path(), "", ("a",), "s0")
PIXELS = np.random.default_rng(0).integers(0, 256, (8, 6, 3), np.uint8)
PICTURE = Image.fromarray(PIXELS)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _png(depth: int, width: int, height: int, rows: bytes) -> bytes:
    """A PNG in RGB, chunk by chunk: Pillow writes none of 16 bits per channel."""
    head = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _deep(path: Path) -> None:
    rows = b"".join(b"\0" + (row.astype(np.uint16) * 257).astype(">u2").tobytes() for row in PIXELS)
    path.write_bytes(_png(16, 6, 8, rows))


def _turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    PICTURE.save(path, exif=exif)


def _tensor(array):
    return lambda path: save_file({"image": array}, path)


def test_plain_pixels_are_read_as_they_are(tmp_path):
    PICTURE.save(tmp_path / "s0.png")
    found = read_folder(tmp_path, [SAMPLE])[0].numpy()
    assert np.array_equal(found, (PIXELS / np.float32(255)).astype(np.float32).transpose(2, 0, 1))
    rows = b"".join(b"\0" + row.tobytes() for row in PIXELS)
    (tmp_path / "s0.png").write_bytes(_png(8, 6, 8, rows))
    assert np.array_equal(read_folder(tmp_path, [SAMPLE])[0].numpy(), found)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_deep, "has 16 bits per channel"),
        (_turned, "is to be turned as its EXIF says"),
        (lambda path: PICTURE.save(path, transparency=(1, 2, 3)), "has a transparent colour"),
        (lambda path: PICTURE.save(path, save_all=True, append_images=[Image.new("RGB", (6, 8))]), "an animation of 2"),
        (lambda path: PICTURE.convert("RGBA").save(path), "has the mode RGBA"),
        (lambda path: PICTURE.convert("P").save(path), "has the mode P"),
        (lambda path: path.write_bytes(_png(8, 60_000, 60_000, b"")), "decompression bomb"),
        (lambda path: PICTURE.save(path, "JPEG"), "is no PNG"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (os.mkfifo, "a pipe"),
        (os.mkdir, "a folder"),
        (lambda path: path.symlink_to("/dev/zero"), "a device"),
    ],
)
def test_a_png_that_says_more_than_its_pixels_is_refused(tmp_path, spoil, words):
    spoil(tmp_path / "s0.png")
    with pytest.raises(UsageError, match=rf"s0\.png .*{words}"):
        read_folder(tmp_path, [SAMPLE])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_tensor(np.zeros((3, 0, 0), np.float32)), "holds an image of 0 x 0 pixels"),
        (_tensor(np.zeros((3, 8, 0), np.float32)), "holds an image of 0 x 8 pixels"),
        (_tensor(np.full((3, 8, 6), np.nan, np.float32)), r"not in \[0, 1\]"),
        (_tensor(np.full((3, 8, 6), np.inf, np.float32)), r"not in \[0, 1\]"),
        (_tensor(np.full((3, 8, 6), -1e-7, np.float32)), r"not in \[0, 1\]"),
        (_tensor(np.zeros((3, 8, 6))), "float64"),
        (lambda path: save_file({}, path), "0 tensors"),
        (lambda path: path.write_bytes(b"\xff" * 8 + b"{"), "is no safetensors file"),
        (lambda path: path.write_bytes(b"\x80\x04."), "is no safetensors file"),
        (os.mkfifo, "a pipe"),
        (os.mkdir, "a folder"),
    ],
)
def test_a_tensor_that_is_no_image_is_refused(tmp_path, spoil, words):
    spoil(tmp_path / "s0.safetensors")
    with pytest.raises(UsageError, match=rf"s0\.safetensors.*{words}"):
        read_folder(tmp_path, [SAMPLE])
