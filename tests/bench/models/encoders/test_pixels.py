"""Pixels equal those of transformers' and open_clip's own transforms over a grid of configurations and image files."""

import io
import itertools

import numpy as np
import pytest
import torch
from open_clip.transform import image_transform
from PIL import Image
from transformers import CLIPImageProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from bench.data.images import Stored, open_image
from bench.errors import UsageError
from bench.models.encoders.encoder import Encoder, TextTower
from bench.models.encoders.pixel_configs import of_open_clip, of_transformers

SIZE = 24
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
SHAPES = [(37, 52), (52, 37), (24, 24), (31, 24), (17, 21), (20, 60), (60, 61)]


def _noise(width, height):
    values = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def _file(picture, kind):
    """The picture in one kind of file, opened as everywhere in the package."""
    buffer = io.BytesIO()
    if kind == "16-bit":
        Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257).save(buffer, "PNG")
    elif kind == "MPO":
        picture.save(buffer, "MPO", save_all=True, append_images=[_noise(*picture.size)])
    elif kind.startswith("EXIF"):
        exif = Image.Exif()
        exif[0x0112] = int(kind[-1])
        picture.save(buffer, "JPEG", exif=exif)
    elif kind == "transparent P":
        picture.convert("P").save(buffer, "PNG", transparency=3)
    elif kind in ("GIF", "WEBP"):
        picture.save(buffer, kind)
    else:
        picture.convert(kind).save(buffer, "TIFF" if kind == "CMYK" else "PNG")
    return open_image(Stored(kind, buffer.getvalue))


KINDS = ["RGB", "L", "1", "LA", "RGBA", "CMYK", "transparent P", "16-bit", "GIF", "WEBP", "MPO", "EXIF 3", "EXIF 6"]


def _standardised(preprocessing, picture):
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (preprocessing.mean, preprocessing.std))
    return (preprocessing(picture) - mean) / std


def _equal(found, expected):
    return found.shape == expected.shape and (found - expected).abs().max() <= 2e-6 * max(1, expected.abs().max())


# ---- transformers ----------------------------------------------------------------------------------------

RESIZES = [
    {},
    {"size": {"shortest_edge": SIZE}},
    {"size": SIZE},
    {"size": {"shortest_edge": 29}},
    {"size": {"shortest_edge": 20}},
    {"size": {"height": SIZE, "width": SIZE}},
    {"size": {"height": 33, "width": 27}},
    {"size": [SIZE, 30]},
    {"size": {"shortest_edge": SIZE, "longest_edge": 40}},
    {"do_resize": False},
]
CROPS = [{"crop_size": SIZE}, {"crop_size": {"height": SIZE, "width": SIZE}}, {"do_center_crop": False}, {}]
SCALES = [
    {},
    {"do_rescale": False},
    {"do_normalize": False},
    {"rescale_factor": 1 / 127.5},
    {"do_normalize": False, "rescale_factor": 0.01},
    {"image_mean": 0.5, "image_std": 0.25},
]
GRID = [
    {"image_mean": MEAN, "image_std": STD, **resize, **crop, **scale, "resample": resample}
    for resize, crop, scale, resample in itertools.product(RESIZES, CROPS, SCALES, range(6))
]


def _compare(config, pictures):
    """Whether a configuration is done as it says; False where it is refused by a key that it holds, or lacks."""
    try:
        preprocessing = of_transformers(config, SIZE, "preprocessor_config.json")
    except UsageError as error:
        if not any(key in str(error) for key in ("size", "do_center_crop", "crop_size")):
            raise
        return False
    reference = CLIPImageProcessorPil(**config)
    for picture in pictures:
        expected = reference(picture, return_tensors="pt")["pixel_values"][0]
        assert _equal(_standardised(preprocessing, picture), expected), (config, picture.size)
    return True


def test_every_fifth_configuration_is_transformers_own_or_refused():
    pictures = [_noise(*shape) for shape in SHAPES[:3]]
    done = sum(_compare(config, pictures) for config in GRID[::5])
    assert done >= 60


@pytest.mark.slow
def test_every_configuration_on_every_kind_of_file():
    pictures = [_file(_noise(*shape), kind) for shape in SHAPES for kind in KINDS]
    done = sum(_compare(config, pictures) for config in GRID)
    assert done >= 200
    assert len(GRID) - done >= 100


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_files(kind):
    config = {"image_mean": MEAN, "image_std": STD, "size": SIZE, "crop_size": SIZE}
    assert _compare(config, [_file(_noise(*shape), kind) for shape in SHAPES])


@pytest.mark.parametrize("resample", [2, 3])
def test_the_processor_on_tensors_differs_by_rounding_only(resample):
    """The other of transformers' two processors: not the reference, but never far from it."""
    config = {"image_mean": MEAN, "image_std": STD, "size": SIZE, "crop_size": SIZE, "resample": resample}
    preprocessing, theirs = of_transformers(config, SIZE, "x"), CLIPImageProcessor(**config, do_normalize=False)
    for shape in SHAPES:
        expected = theirs(_noise(*shape), return_tensors="pt")["pixel_values"][0]
        assert (preprocessing(_noise(*shape)) - expected).abs().max() < 2.5 / 255


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"do_pad": True}, "do_pad is not supported"),
        ({"do_resize": "false"}, "do_resize must be true or false, not 'false'"),
        ({"do_center_crop": 1}, "do_center_crop must be true or false"),
        ({"resample": 6}, "resample 6 is not supported"),
        ({"resample": "bicubic"}, "resample 'bicubic'"),
        ({"resample": [3]}, "resample"),
        ({"crop_size": 25}, "crop_size is 25 x 25, the image tower takes 24"),
        ({"crop_size": {"shortest_edge": 24}}, "crop_size"),
        ({"size": {"max_height": 24, "max_width": 24}}, "size"),
        ({"size": 0}, "size must be a number of pixels, not 0"),
        ({"size": True}, "size must be a number of pixels"),
        ({"size": {"shortest_edge": 24.5}}, "size must be a number of pixels"),
        ({"image_mean": [0.5, 0.5]}, "image_mean must be a number for each of 3 channels"),
        ({"image_std": [0.5, 0.5, 0]}, "image_std must be a number above 0"),
        ({"image_mean": [0.5, 0.5, float("nan")]}, "image_mean"),
        ({"image_std": None}, "lacks image_mean or image_std"),
        ({"rescale_factor": 0}, "rescale_factor must be a number above 0"),
        ({"rescale_factor": "1/255"}, "rescale_factor"),
        ({"image_processor_type": "SiglipImageProcessor"}, "image_processor_type 'SiglipImageProcessor'"),
        ({"do_center_crop": False}, "do_center_crop is false"),
        ({"do_resize": False, "do_center_crop": False}, "do_center_crop is false"),
    ],
)
def test_what_cannot_be_done_is_refused_by_its_key(changes, message):
    config = {"image_mean": MEAN, "image_std": STD, "size": SIZE, "crop_size": SIZE} | changes
    with pytest.raises(UsageError, match=f"^preprocessor_config.json.*{message}"):
        of_transformers(config, SIZE, "preprocessor_config.json")


def test_null_means_the_default():
    config = {"image_mean": MEAN, "image_std": STD, "size": SIZE, "crop_size": SIZE}
    nulls = dict.fromkeys(("do_resize", "do_center_crop", "do_rescale", "do_normalize", "resample", "do_pad"))
    assert of_transformers(config | nulls, SIZE, "x") == of_transformers(config, SIZE, "x")


# ---- open_clip -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["shortest", "squash", None])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", None])
def test_open_clips_own_transform(mode, interpolation):
    """On pictures that are RGB already: open_clip converts after it resizes, for which palettes are too coarse."""
    config = {"mean": MEAN, "std": STD, "interpolation": interpolation, "resize_mode": mode, "size": [SIZE, SIZE]}
    preprocessing = of_open_clip(config, (SIZE, SIZE), "x")
    theirs = image_transform(SIZE, False, MEAN, STD, resize_mode=mode, interpolation=interpolation)
    for shape, kind in itertools.product(SHAPES, KINDS):
        picture = _file(_noise(*shape), kind)
        assert _equal(_standardised(preprocessing, picture), theirs(picture)), (shape, kind)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resize_mode": "longest"}, "resize_mode 'longest'"),
        ({"interpolation": "random"}, "interpolation 'random'"),
        ({"mode": "L"}, "mode 'L'"),
        ({"mean": "0.5"}, "mean must be a number for each"),
        ({"std": [1, 1, -1]}, "std must be a number above 0"),
        ({"size": 28}, "size 28"),
    ],
)
def test_what_open_clip_may_not_ask_for(changes, message):
    with pytest.raises(UsageError, match=message):
        of_open_clip({"mean": 0.5, "std": 0.5} | changes, SIZE, "open_clip_config.json")


def test_an_encoder_preprocesses_as_it_is_told():
    """Bilinear is what DeltaCLIP's rows ask for."""
    picture = _noise(50, 70)
    bilinear, bicubic = (
        of_open_clip({"mean": 0.5, "std": 0.5, "interpolation": name}, SIZE, "x") for name in ("bilinear", "bicubic")
    )
    cropped = picture.resize((SIZE, 33), Image.Resampling.BILINEAR).crop((0, 4, SIZE, 4 + SIZE))
    expected = torch.from_numpy(np.asarray(cropped) / np.float32(255)).permute(2, 0, 1)
    encoder = Encoder(torch.nn.Linear(1, 1), bilinear, TextTower(torch.nn.Identity(), None))
    assert torch.equal(encoder.preprocess(picture), expected)
    assert not torch.equal(bicubic(picture), expected)
