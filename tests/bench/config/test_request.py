"""One request: what the command line and the library take is what a header gives back."""

import inspect
import types
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import bench
from bench.cli.run import run as command
from bench.cli.score import score
from bench.config import Request, request_of, resolve
from bench.config.black_box import PACE
from bench.config.request import about, flag
from bench.errors import UsageError
from bench.records import RunHeader
from bench.running.header import header_of
from tasks.base import Dataset, Sample
from tests.bench.runs import make_header

ONLY_CLI, ONLY_LIBRARY, ONLY_SCORE = {"everything", "as_json", "quiet"}, {"progress"}, {"clean"}
ENDPOINT = {"vlm": ("openai:http://127.0.0.1:8000/v1#m",), "task": ("vqa",), "dataset": ("mini-vqa",), "attack": "none"}
FIELDS = [f.name for f in fields(Request)]


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A value other than the default for every option, as `Request` holds it."""
    folder = tmp_path_factory.mktemp("request")
    (folder / "own.toml").write_text('base = "mini"\nseed = 5\n')
    (folder / "data" / "photos" / "images").mkdir(parents=True)
    for name in ("questions", "annotations"):
        (folder / "data" / "photos" / f"{name}.json").write_text("{}")
    return {
        "suite": str(folder / "own.toml"),
        "limit": 7,
        "batch_size": 3,
        "device": "cpu",
        "output": Path("elsewhere"),
        "data_root": folder / "data",
        "save_adversarial": True,
        "images": folder / "images",
        "clean": folder / "clean",
        "protocol": "paper",
        "compiled": True,
        "tower": "native",
        "arch": "ViT-B-32",
        "defence": ("jpeg?quality=50",),
        "vlm": ("owner/llava?conversation=vicuna_v1",),
        "image_size": 224,
        "shots": 4,
        "surrogate_vlm": ("owner/flamingo?shots=4",),
        "repeats": 2,
        "rpm": 30,
        "concurrency": 3,
        "max_cost": 1.5,
        "price": "2,10",
        "force": True,
        "jobs": 2,
        "shards": 3,
        "on": "inline",
        "log_to": ("tensorboard:logs", "mlflow:store"),
        "encoder": ("fare4",),
        "task": ("vqa",),
        "dataset": ("vqa:photos",),
        "eps": (0.25, 0.5),
        "norm": "l2",
        "attack": "transfer",
        "seed": 11,
        "surrogate": ("clip", "fare2"),
        "ensemble": "2,1",
        "judge": "words",
        "precision": "bf16",
        "radii_order": "descending",
    }


def through_a_header(request: Request) -> Request:
    (config,) = resolve(request)
    samples = (Sample("s0", Path("a.png"), "", ("circle",), "s0"),)
    task = types.SimpleNamespace(
        dataset=Dataset("d", samples), version=1, metric="accuracy (%)", worst="min", model="vlm", ceiling=100.0
    )
    header = header_of(config, task, {}, "digest", torch.device("cpu"))
    return request_of(RunHeader.from_json(header.to_json()))


def test_every_option_comes_back_through_a_header(other):
    assert set(other) == set(FIELDS)
    assert all(other[f.name] != f.default for f in fields(Request))
    named = ("shots", "image_size")  # become settings of the victim
    # a defence neither a surrogate nor half precision, and the paper's protocol no order of radii
    never = ("defence", "judge", *named, *PACE, "images", "radii_order")
    for left_out in (
        ("tower", *never),
        ("surrogate", "ensemble", "surrogate_vlm", "attack", *never),
    ):  # they exclude each other
        request = Request(**{name: value for name, value in other.items() if name not in left_out})
        again = through_a_header(request)
        assert again == (request if request.attack else replace(request, attack="apgd"))


@pytest.mark.parametrize("name", FIELDS)
def test_each_option_alone_comes_back_through_a_header(other, name):
    needed = {
        "dataset": ("data_root",), "norm": ("eps",), "eps": ("norm",), "attack": ("surrogate", "ensemble"),
        "images": ("eps",), "surrogate": ("ensemble",), "ensemble": ("surrogate",),
    }.get(name, ())  # fmt: skip
    if name == "images":
        other = other | {"eps": (4.0,)}  # one radius
    local = {"encoder": ("clip",), "task": ("vqa",), "dataset": ("mini-vqa",)}
    base = ENDPOINT if name in PACE else local
    if name == "judge":
        base = base | {"task": ("keywords",), "dataset": ("mini-pairs",)}
    request = Request(**base | {one: other[one] for one in (name, *needed)})
    again = through_a_header(request)
    if name in ("shots", "image_size"):  # settings of the victim, which the header names with it
        assert again.vlm == (f"package:mini/weights/llava?{name}={other[name]}",)
    else:
        assert getattr(again, name) == other[name]
    assert resolve(again) == resolve(request)


def test_a_place_in_the_working_folder_means_the_same_in_another(tmp_path, monkeypatch):
    (tmp_path / "photos" / "circle").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    again = through_a_header(Request.of(encoder="clip", task="zeroshot", dataset="imagefolder:photos"))
    assert again.dataset == (f"imagefolder:{tmp_path / 'photos'}",)


@pytest.mark.parametrize("config", [{}, {"data_root": "/data", "arch": "ViT-L-14"}])
def test_a_header_from_before_requests_were_stored_makes_its_request(config):
    header = make_header(
        suite="mini-full", attack="apgd-from-clip", limit=30, seed=4, model="owner/llava", config=config,
        protocol={"precision": "bf16", "name": "paper", "tower": "native", "surrogate": "clip", "compiled": True},
    )  # fmt: skip
    request = request_of(header, limit=5)
    wanted = Request(
        suite="mini-full", encoder=("fare4",), task=("vqa",), dataset=("mini-vqa",), attack="apgd",
        surrogate=("clip",), eps=(2.0, 4.0), norm="linf", seed=4, limit=5, precision="bf16", protocol="paper",
        tower="native", compiled=True, vlm=("owner/llava",), arch=config.get("arch"), radii_order="ascending",
        data_root=Path("/data") if config else None,
    )  # fmt: skip
    assert request == wanted


def test_a_header_that_stored_a_runs_settings_makes_its_request():
    config = {
        "suite": "mini-full", "encoder": "clip", "task": "vqa", "dataset": "harbour", "samples": 60, "attack": "apgd",
        "norm": "linf", "eps": [2.0], "seed": 0, "limit": None, "surrogate": None, "output": "results/runs",
        "data_root": ".", "protocol": "strict", "precision": "float32", "tower": "encoder", "vlm": None,
        "place": {"name": "harbour", "row": {"format": "vqa"}, "root": ".", "where": "vqa:/data/harbour"},
    }  # fmt: skip
    request = request_of(make_header(config=config, radii=(2.0,), dataset="harbour"))
    assert request == Request(
        suite="mini-full", encoder=("clip",), task=("vqa",), dataset=("vqa:/data/harbour",), attack="apgd",
        norm="linf", eps=(2.0,), seed=0, data_root=Path(), precision="float32", radii_order="ascending",
    )  # fmt: skip


def test_each_option_is_one_flag_and_one_keyword_with_the_same_words():
    flags = {parameter.name: parameter for parameter in command.params}
    assert len(flags) == len(command.params)
    flags |= {parameter.name: parameter for parameter in score.params if parameter.name in ONLY_SCORE}
    assert set(flags) - ONLY_CLI == {*FIELDS} - {"images"}, "images are the argument of bench score"
    for name in {*FIELDS} - {"images"}:
        assert flag(name) in flags[name].opts
        assert flags[name].help == about()[name]
    keywords = inspect.signature(bench.run).parameters
    assert set(keywords) - ONLY_LIBRARY == set(FIELDS)
    assert list(keywords)[:2] == ["encoder", "task"]
    for name in FIELDS:
        assert f"{name}: {about()[name]}" in bench.run.__doc__


def test_loose_values_become_the_types_of_the_fields():
    request = Request.of(
        encoder=[Path("a/b.pt"), "clip"], task="vqa, captioning", limit=np.int64(3), seed=np.int32(0),
        eps=np.float32(2), batch_size="auto", output="out", save_adversarial=np.bool_(True), surrogate=None, arch=None,
        jobs="4",
    )  # fmt: skip
    assert request == Request(
        encoder=("a/b.pt", "clip"), task=("vqa", "captioning"), limit=3, seed=0, eps=(2.0,), output=Path("out"),
        save_adversarial=True, jobs=4,
    )  # fmt: skip
    assert type(request.limit) is type(request.seed) is int
    assert type(request.eps[0]) is float
    assert type(request.save_adversarial) is bool
    assert Request.of(eps=np.array([2, 4])).eps == (2.0, 4.0)
    assert Request.of(eps="4/255 2").eps == ("4/255", "2")


@pytest.mark.parametrize(
    ("loose", "message"),
    [
        ({"limit": 0}, "--limit must be at least 1, got 0"),
        ({"limit": True}, "--limit"),
        ({"limit": 2.5}, "--limit takes a whole number, not 2.5"),
        ({"seed": -1}, "--seed must be at least 0"),
        ({"batch_size": "many"}, "--batch-size takes 'auto' or a number from 1, got 'many'"),
        ({"encoder": 3}, "--encoder takes a name, not 3"),
        ({"encoder": []}, "--encoder: no name given"),
        ({"eps": [None]}, "--eps takes numbers, not None"),
        ({"save_adversarial": "yes"}, "--save-adversarial is on or off"),
        ({"compiled": 2}, "--compile is on or off"),
        ({"output": ""}, "--output takes a name"),
        ({"encoder": "a\0b"}, r"--encoder takes a name, not 'a\\x00b'"),
        ({"output": Path("a\0b")}, "--output takes a name"),
        ({"encodr": "clip"}, "unknown option 'encodr'; did you mean 'encoder'"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_the_option(loose, message):
    with pytest.raises(UsageError, match=message):
        Request.of(**loose)


def test_the_library_takes_encoder_and_task_by_position():
    with pytest.raises(UsageError, match="did you mean 'vqa'"):
        bench.run("clip", "vqaa")
    assert {"run", "run_all", "Result", "__version__"} <= set(dir(bench))
    assert bench.__version__[0].isdecimal()
