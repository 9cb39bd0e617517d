"""Damaged weights, configurations and plugins: a right result, or one error that names the file. Never a traceback."""

import json
import shutil
import string
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from bench import registry
from bench.errors import UsageError
from bench.models.encoders.checkpoint import read_state_dict, weights_files
from bench.models.encoders.formats import open_clip_folder
from bench.models.encoders.pixel_configs import of_transformers
from bench.models.encoders.pixels import Preprocessing
from bench.models.victims.family import Family
from bench.models.victims.llava.files import read_llava
from tests.bench.models import checkpoints
from tests.bench.models.llava_checkpoint import write_llava

# ---- Mutations -------------------------------------------------------------------------------------------

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 600),
    st.sampled_from([10**7, 10**30, -(10**9)]),
    st.floats(),
    st.text(string.ascii_letters + "/.é", max_size=8),
    st.builds(list),
    st.builds(dict),
    st.builds(lambda: [1, 2]),
    st.builds(lambda: {"a": None}),
)


@st.composite
def bytes_of(draw, original: bytes) -> bytes:
    """A file cut short, or with some bytes changed, put in or taken out."""
    content = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["cut", "flip", "insert", "drop", "head"]))
        place = draw(st.integers(0, max(0, len(content) - 1)))
        if kind == "cut":
            del content[place:]
        elif kind == "insert":
            content[place:place] = draw(st.binary(max_size=8))
        elif kind == "drop":
            del content[place : place + draw(st.integers(1, 40))]
        elif content:
            place = place % 200 if kind == "head" else place
            content[min(place, len(content) - 1)] = draw(st.integers(0, 255))
    return bytes(content)


def _places(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _places(inner, (*path, key))


@st.composite
def json_of(draw, original) -> str:
    """A JSON value with some of its values replaced or taken out, or its text damaged."""
    if draw(st.integers(0, 9)) == 0:
        return draw(bytes_of(json.dumps(original).encode())).decode("utf-8", "replace")
    value = json.loads(json.dumps(original))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from([p for p in _places(value) if p] or [()]))
        if not path:
            return json.dumps(draw(SCALARS))
        parent = value
        for key in path[:-1]:
            parent = parent[key]
        if draw(st.booleans()):
            parent[path[-1]] = draw(SCALARS)
        else:
            del parent[path[-1]]
    return json.dumps(value)


# ---- Readers ---------------------------------------------------------------------------------------------


@cache
def _folder() -> Path:
    return Path(mkdtemp())


@cache
def _weights(kind: str) -> bytes:
    torch.manual_seed(0)
    model, path = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)), _folder() / f"original-{kind}"
    if kind == "safetensors":
        save_file(model.state_dict(), path)
    elif kind == "torchscript":
        torch.jit.trace(model, torch.ones(1, 3)).save(str(path))
    else:
        torch.save(model.state_dict(), path, _use_new_zipfile_serialization=kind == "zip")
    return path.read_bytes()


def _read_weights(kind, content):
    path = _folder() / f"weights{'.safetensors' if kind == 'safetensors' else '.pt'}"
    path.write_bytes(content)
    state = read_state_dict(path)
    assert all(isinstance(value, Tensor) and value.isfinite().all() for value in state.values())


def _reader_of_weights(kind):
    return bytes_of(_weights(kind)), lambda content: _read_weights(kind, content), "weights"


def _index():
    folder = _folder() / "sharded"
    folder.mkdir(exist_ok=True)
    for name in ("a.safetensors", "b.safetensors"):
        save_file({"x": torch.ones(2)}, folder / name)
    index = folder / "model.safetensors.index.json"

    def read(content):
        index.write_text(content)
        assert {path.name for path in weights_files(folder)} <= {"a.safetensors", "b.safetensors"}

    return (
        json_of({"metadata": {"total_size": 8}, "weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}),
        read,
        "sharded",
    )


def _preprocessor():
    config = {
        "do_resize": True,
        "do_center_crop": True,
        "do_rescale": True,
        "do_normalize": True,
        "resample": 3,
        "size": {"shortest_edge": 28},
        "crop_size": {"height": 28, "width": 28},
        "rescale_factor": 1 / 255,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "image_processor_type": "CLIPImageProcessor",
    }

    def read(content):
        try:
            found = json.loads(content)
        except ValueError:
            return
        if isinstance(found, dict):
            assert isinstance(of_transformers(found, 28, "preprocessor_config.json"), Preprocessing)

    return json_of(config), read, "preprocessor_config.json"


def _open_clip():
    folder = _folder() / "open_clip"
    if not folder.exists():
        checkpoints.open_clip_folder(folder)
    path = folder / "open_clip_config.json"
    original = json.loads(path.read_text())

    def read(content):
        path.write_text(content)
        assert open_clip_folder(folder).preprocessing.size == 28

    return json_of(original), read, "open_clip"


def _llava():
    folder = _folder() / "llava"
    if not folder.exists():
        write_llava(folder)
    path = folder / "config.json"
    original = (
        json.loads(shutil.copy(path, folder / "original").read_text())
        if not (folder / "original").exists()
        else json.loads((folder / "original").read_text())
    )

    def read(content):
        path.write_text(content)
        model, _ = read_llava(str(folder), torch.float32, tower=True)
        assert model.config.model_type == "llava"

    return json_of(original), read, "llava"


READERS = {
    **{kind: (lambda kind=kind: _reader_of_weights(kind)) for kind in ("zip", "legacy", "safetensors", "torchscript")},
    "index": _index,
    "preprocessor": _preprocessor,
    "open_clip": _open_clip,
    "llava": _llava,
}


def _fuzz(name, count):
    strategy, read, place = READERS[name]()

    @settings(
        max_examples=count, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(content=strategy)
    def check(content):
        try:
            read(content)
        except UsageError as error:
            said = str(error)
            assert place in said
            assert "\n" not in said
            assert "weights_only" not in said

    check()


@pytest.mark.parametrize("name", READERS)
def test_a_hundred_damaged_inputs(name):
    _fuzz(name, 100)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_two_thousand_damaged_inputs(name):
    _fuzz(name, 2000)


# ---- Plugins ---------------------------------------------------------------------------------------------


def _raise(error):
    raise error


RAISING = [lambda error=error: _raise(error) for error in (RuntimeError("x"), KeyError(3), RecursionError())]
NOT_FAMILIES = [None, 3, "text", [], object(), nn.Identity, lambda: None, lambda one: one, *RAISING]


@pytest.mark.parametrize("group", ["bench.victims", "bench.encoders"])
@pytest.mark.parametrize("thing", NOT_FAMILIES)
def test_a_plugin_may_be_anything(monkeypatch, group, thing):
    point = EntryPoint("mine", "some_package:thing", group)
    monkeypatch.setattr(registry, "plugins", lambda asked: {"mine": point})
    monkeypatch.setattr(EntryPoint, "load", lambda self: thing)
    with pytest.raises(UsageError, match=r"the plugin 'mine' \(bench\.\w+ .*some_package:thing\) is broken"):
        registry.made(group, "mine", Family)
