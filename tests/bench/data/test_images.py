"""Images of every kind become 8-bit RGB."""

import os
import warnings

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from bench.data.images import FORMATS, Stored, open_image, read_file
from tests.bench.data.small import HTML, LFS, noise, png, refused, write


def test_images_that_cannot_be_read_are_named(tmp_path):
    absent = tmp_path / "absent.jpg"
    refused(lambda: open_image(absent), absent, "no image at", "download the images")
    empty = write(tmp_path / "empty.jpg", b"")
    refused(lambda: open_image(empty), empty, "empty (0 bytes)", "download it again")
    for name, content in (("page.jpg", HTML), ("pointer.jpg", LFS), ("text.jpg", b"hello")):
        path = write(tmp_path / name, content)
        refused(lambda path=path: open_image(path), path, "not an image", "download it again")
    refused(lambda: open_image(tmp_path), tmp_path, "is no file but a folder")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


def test_no_image_file_reaches_a_program(tmp_path, monkeypatch):
    """Pillow gives EPS, by whatever name, to Ghostscript; here a program of that name leaves a mark."""
    mark, program = tmp_path / "mark", tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {mark}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    path = write(tmp_path / "photo.png", EPS)
    refused(lambda: open_image(path), path, "not an image in a format that is read", "convert it to PNG")
    refused(lambda: open_image(Stored("0.tar:photo.png", path.read_bytes)), "0.tar:photo.png", "not an image")
    assert not mark.exists()
    with pytest.raises(OSError), Image.open(path) as image:  # noqa: PT011 - what Ghostscript's output lacks
        image.load()
    assert mark.exists()  # so it would have


def test_pillow_decodes_no_format_that_is_not_named():
    """What a plugin of Pillow's, or of a later version's, would take is refused unless it is one of ours."""
    Image.init()
    assert {"EPS", "JPEG2000", "PSD", "ICNS"} <= Image.OPEN.keys() - set(FORMATS)
    assert set(FORMATS) <= Image.OPEN.keys()


@pytest.mark.parametrize("read", [open_image, read_file], ids=["image", "bytes"])
def test_what_has_no_end_is_not_read(tmp_path, read):
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    refused(lambda: read(pipe), pipe, "a pipe")
    device = tmp_path / "zero.png"
    device.symlink_to("/dev/zero")
    refused(lambda: read(device), device, "a device")
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(1 << 40)  # a hole, which takes no room on the disk
    refused(lambda: read(tmp_path / "huge.png"), tmp_path / "huge.png", "an image file has at most")


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "gif", "tiff"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_images_are_named(tmp_path, kind, share):
    content = noise(kind)
    path = write(tmp_path / f"cut.{kind}", content[: int(len(content) * share)])
    refused(lambda: open_image(path), path, "download it again")


def test_a_damaged_png_is_named(tmp_path):
    content = bytearray(noise("png"))
    content[60:70] = bytes(10)
    path = write(tmp_path / "damaged.png", bytes(content))
    refused(lambda: open_image(path), path, "cannot be decoded", "download it again")


def test_cmyk_becomes_rgb(tmp_path):
    path = write(tmp_path / "cmyk.jpg", png((0, 255, 255, 0), (16, 16), "CMYK", "jpeg"))
    image = open_image(path)
    assert image.mode == "RGB"
    red, green, blue = image.getpixel((8, 8))
    assert red > 250
    assert max(green, blue) < 5


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path, kind):
    values = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    path = tmp_path / f"deep.{kind}"
    Image.fromarray(values).save(path)
    pixels = np.asarray(open_image(path))
    assert pixels[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]
    assert (pixels == pixels[..., :1]).all()
    in_memory = Image.fromarray(values.astype(np.int32))
    assert np.array_equal(np.asarray(open_image(in_memory)), pixels)


def test_pixels_without_a_known_range_are_refused(tmp_path):
    for name, values in (
        ("float.tiff", np.zeros((2, 2), np.float32)),
        ("deep.tiff", np.full((2, 2), 1 << 20, np.int32)),
    ):
        path = tmp_path / name
        Image.fromarray(values).save(path)
        refused(lambda path=path: open_image(path), path, "range is not known", "convert it to 8 bits")


@pytest.mark.parametrize("kind", ["gif", "webp", "png"])
def test_of_an_animation_the_first_frame_counts(tmp_path, kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    path = tmp_path / f"animated.{kind}"
    frames[0].save(path, kind, save_all=True, append_images=frames[1:], lossless=True)
    assert open_image(path).getpixel((4, 4)) == (255, 0, 0)
    with Image.open(path) as image:
        assert image.n_frames == 3
        image.seek(2)
        assert open_image(image).getpixel((4, 4)) == (255, 0, 0)


# How a camera stores an upright scene, by the value of the EXIF tag; PIL turns counter-clockwise.
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(tmp_path, orientation):
    upright = Image.frombytes("RGB", (3, 2), bytes(range(18)))
    stored = upright if orientation == 1 else upright.transpose(STORED[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    stored.save(path, exif=exif)
    image = open_image(path)
    assert image.size == upright.size
    assert image.tobytes() == upright.tobytes() == open_image(image).tobytes()


def test_damaged_exif_says_nothing(tmp_path):
    path = tmp_path / "exif.jpg"
    Image.new("RGB", (3, 2)).save(path, exif=b"Exif\x00\x00junk and more junk")
    assert open_image(path).size == (3, 2)


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", 7, (7, 7, 7)),
        ("1", 1, (255, 255, 255)),
        ("LA", (9, 0), (9, 9, 9)),
        ("RGBA", (1, 2, 3, 0), (1, 2, 3)),
    ],
    ids=["grey", "bilevel", "grey-alpha", "alpha"],
)
def test_other_modes_become_rgb(tmp_path, mode, colour, expected):
    path = write(tmp_path / "x.png", png(colour, mode=mode))
    assert open_image(path).getpixel((0, 0)) == expected


def test_a_palette_with_transparency_becomes_rgb_without_a_warning(tmp_path):
    image = Image.new("P", (2, 2), 1)
    image.putpalette([0, 0, 0, 40, 50, 60])
    path = tmp_path / "palette.png"
    image.save(path, transparency=b"\xff\x00")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_image(path).getpixel((1, 1)) == (40, 50, 60)


def test_one_pixel_is_an_image(tmp_path):
    path = write(tmp_path / "dot.png", png(size=(1, 1)))
    assert open_image(path).size == (1, 1)


def test_opening_an_rgb_picture_gives_a_copy():
    image = Image.new("RGB", (2, 2))
    open_image(image).putpixel((0, 0), (1, 1, 1))
    assert image.getpixel((0, 0)) == (0, 0, 0)
