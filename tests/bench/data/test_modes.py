"""Every mode of image decodes to what Pillow and transformers make of it, or is refused by name.

Expected is `PIL.Image.convert("RGB")`, which CLIP's processors call, and transformers' own way to open a file; scaled
values where those clip (16 bits).
"""

import io
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms.functional import to_tensor
from transformers.image_utils import load_image

from bench.data.images import open_image
from bench.train.sources import IndexedSource, Raw
from bench.train.stream import ImageStream
from tests.bench.data.small import refused, stored, write

SIZE = (6, 4)
NOISE = np.random.default_rng(7).integers(0, 256, (*SIZE[::-1], 4), np.uint8)


def _stored(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _palette(**options) -> bytes:
    image = Image.fromarray(NOISE[..., :3]).quantize(7)
    return _stored(image, "png", **options)


def _turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return _stored(Image.fromarray(NOISE[..., :3]), "jpeg", exif=exif)


def _frames(kind: str, **options) -> bytes:
    first, second = (Image.fromarray(np.roll(NOISE[..., :3], k, 0)) for k in (0, 1))
    return _stored(first, kind, save_all=True, append_images=[second], **options)


GREY, COLOURS = Image.fromarray(NOISE[..., 0]), Image.fromarray(NOISE[..., :3])
AS_PILLOW = {
    "L": _stored(GREY, "png"),
    "1": _stored(GREY.convert("1"), "png"),
    "1 in TIFF": _stored(GREY.convert("1"), "tiff"),
    "LA": _stored(Image.merge("LA", [GREY, Image.fromarray(NOISE[..., 3])]), "png"),
    "RGB": _stored(COLOURS, "png"),
    "RGBA": _stored(Image.fromarray(NOISE), "png"),
    "P": _palette(),
    "P with one transparent colour": _palette(transparency=2),
    "P with an alpha for each colour": _palette(transparency=bytes([0, 128, 255, 3, 9, 77, 250])),
    "CMYK": _stored(COLOURS.convert("CMYK"), "jpeg"),
    "CMYK in TIFF": _stored(COLOURS.convert("CMYK"), "tiff"),
    "YCbCr in TIFF": _stored(COLOURS.convert("YCbCr"), "tiff"),
    "GIF": _frames("gif"),
    "GIF with a transparent colour": _stored(COLOURS.quantize(5), "gif", transparency=1),
    "WebP": _frames("webp", lossless=True),
    "WebP with transparency": _stored(Image.fromarray(NOISE), "webp", lossless=True),
    "MPO": _frames("mpo"),
    "TIFF of two pages": _frames("tiff"),
    "APNG": _frames("png"),
    "BMP": _stored(COLOURS, "bmp"),
    **{f"EXIF {orientation}": _turned(orientation) for orientation in range(1, 9)},
}


@pytest.mark.parametrize("name", AS_PILLOW)
@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
def test_a_mode_decodes_as_pillow_and_transformers_make_it(name, tmp_path):
    content = AS_PILLOW[name]
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    found = open_image(stored(name, content))
    assert found.mode == "RGB"
    assert np.array_equal(np.asarray(found), expected)
    path = write(tmp_path / "image", content)
    assert np.array_equal(np.asarray(open_image(path)), expected)
    assert np.array_equal(np.asarray(load_image(str(path))), expected), "transformers' own way to open a file"


@pytest.mark.parametrize("name", [name for name in AS_PILLOW if name.startswith("EXIF")])
def test_pixels_stay_as_stored_where_the_protocol_says_so(name):
    with Image.open(io.BytesIO(AS_PILLOW[name])) as image:
        expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(np.asarray(open_image(stored(name, AS_PILLOW[name]), upright=False)), expected)


DEEP = np.arange(24, dtype=np.uint16).reshape(4, 6) * 2849  # 0 to 65527


@pytest.mark.parametrize(
    ("kind", "array"),
    [("png", DEEP), ("tiff", DEEP), ("tiff", DEEP.astype(">u2"))],
    ids=["png", "tiff", "big-endian tiff"],
)
def test_sixteen_bits_are_scaled(kind, array):
    found = np.asarray(open_image(stored("deep", _stored(Image.fromarray(array), kind))))
    assert np.array_equal(found[..., 0], np.rint(DEEP / 65535 * 255))
    assert (found == found[..., :1]).all()
    assert abs(found.mean() / 255 - DEEP.mean() / 65535) < 0.002


@pytest.mark.parametrize(
    "array",
    [
        np.linspace(0, 1, 24, dtype=np.float32).reshape(4, 6),  # comes out black if it is clipped
        np.linspace(0, 255, 24, dtype=np.float32).reshape(4, 6),
        np.arange(24, dtype=np.int32).reshape(4, 6),  # 32 bits, however small the values
        np.arange(24, dtype=np.int32).reshape(4, 6) * 10**8,
    ],
    ids=["float to 1", "float to 255", "32-bit small", "32-bit large"],
)
def test_pixels_whose_range_is_not_known_are_refused_by_name(tmp_path, array):
    path = write(tmp_path / "deep.tiff", _stored(Image.fromarray(array), "tiff"))
    refused(lambda: open_image(path), path, "range is not known", "convert it to 8 bits")


def test_evaluation_and_training_decode_alike():
    files = {**AS_PILLOW, "16 bits": _stored(Image.fromarray(DEEP), "png")}
    raws = [Raw(name, partial(files.get, name)) for name in files]
    source = IndexedSource("modes", len(raws), raws.__getitem__, "")
    stream = ImageStream(source, to_tensor, 1)
    trained = {raw.id: image for image, raw in stream.readable(raws)}
    stream.close()
    assert trained.keys() == files.keys()
    for name, image in trained.items():
        assert torch.equal(image, to_tensor(open_image(stored(name, files[name])))), name
