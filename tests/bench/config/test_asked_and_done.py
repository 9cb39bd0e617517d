"""What was asked for is done, or is an error; and what the paper's protocol brings along."""

import pytest

import bench
from attacks.presets import PRESETS, Preset
from bench.config import Request, resolve
from bench.errors import UsageError


def resolved(**options):
    return resolve(Request.of(**{"encoder": "clip", "task": "vqa"} | options))


@pytest.mark.parametrize("task", ["zeroshot", "zeroshot,vqa", "all"])
def test_a_mistyped_dataset_is_an_error_also_beside_others(task):
    with pytest.raises(UsageError, match=r"unknown dataset 'mini-colr'; did you mean 'mini-colour'"):
        resolved(task=task, dataset="mini-shape,mini-colr")


def test_a_dataset_that_no_task_takes_is_an_error():
    with pytest.raises(UsageError, match=r"no task asked for \(vqa\) has dataset 'mini-shape'"):
        resolved(dataset="mini-vqa,mini-shape")


def test_a_place_that_no_task_takes_is_an_error(tmp_path):
    (tmp_path / "circle").mkdir()
    with pytest.raises(UsageError, match=r"no task asked for \(vqa\) has dataset 'imagefolder:"):
        resolved(dataset=["mini-vqa", f"imagefolder:{tmp_path}"])


def test_a_task_that_was_named_and_takes_none_of_the_datasets_is_an_error():
    with pytest.raises(UsageError, match=r"task 'vqa' asks none of --dataset mini-shape; leave it out"):
        resolved(task="zeroshot,vqa", dataset="mini-shape")
    assert [c.task for c in resolved(task="all", dataset="mini-shape")] == ["zeroshot"]


@pytest.mark.parametrize(
    ("options", "precision"),
    [
        ({}, "float32"),
        ({"protocol": "paper"}, "fp16"),
        ({"protocol": "paper", "task": "captioning"}, "fp16"),
        ({"protocol": "paper", "precision": "float32"}, "float32"),
        ({"protocol": "paper", "precision": "bf16"}, "bf16"),
        ({"protocol": "paper", "task": "zeroshot"}, "float32"),
        ({"protocol": "paper", "task": "stealth"}, "float32"),
        ({"precision": "fp16"}, "fp16"),
    ],
)
def test_the_papers_protocol_brings_the_papers_precision(options, precision):
    assert {config.precision for config in resolved(**options)} == {precision}


def test_the_papers_ensemble_is_in_half_precision_in_its_first_six_rounds():
    """The clean answers and five rounds; then the round from the worst image and the targets in float32."""
    steps = [step.precision for step in PRESETS["ensemble-vqa"].steps]
    assert steps == ["search"] * 5 + ["float32"] * 3


def test_a_run_under_the_papers_protocol_says_its_precision(tmp_path, monkeypatch):
    step = PRESETS["ensemble-vqa"].steps[0]
    monkeypatch.setitem(PRESETS, "short", Preset("", (step,)))
    options = {"attack": "short", "eps": 2, "limit": 2, "jobs": 1, "device": "cpu", "progress": False}
    (run,) = bench.run("clip", "vqa", protocol="paper", output=tmp_path, **options).runs
    assert (run.header.precision, run.header.protocol_name, run.header.status) == ("fp16", "paper", "complete")


def refused(**options):
    with pytest.raises(UsageError) as caught:
        bench.run(**{"encoder": "clip", "task": "vqa", "progress": False} | options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"eps": 4}, "--eps"),
        ({"eps": 0.5, "norm": "l2"}, "--eps, --norm"),
        ({"precision": "bf16"}, "--precision"),
        ({"surrogate": "fare2"}, "--surrogate"),
        ({"surrogate_vlm": "mini-openflamingo"}, "--surrogate-vlm"),
    ],
)
def test_what_only_an_attack_has_a_use_for_is_an_error_without_one(options, names, tmp_path):
    message = refused(attack="none", output=tmp_path, **options)
    assert message.startswith(f"{names}: attack 'none' makes no images; leave that out, or choose an attack")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [{}, {"encoder": "clip,fare"}, {"encoder": None, "vlm": "mini-openflamingo"}])
def test_the_architecture_of_no_path_is_an_error(options, tmp_path):
    message = refused(arch="ViT-B-32", attack="none", output=tmp_path, **options)
    assert "--arch says what a checkpoint's file or folder holds, and no encoder is given as a path" in message


def test_the_architecture_of_a_whole_suite_is_an_error():
    with pytest.raises(UsageError, match=r"--arch says .* leave it out"):
        bench.run_all(suite="mini-full", arch="ViT-B-32")


@pytest.mark.parametrize("options", [{"encoder": "clip,./tower.pt"}, {"surrogate": "./tower.pt", "eps": 4}])
def test_the_architecture_of_one_path_among_names_is_no_error(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "tower.pt" in refused(arch="ViT-B-32", output=tmp_path, jobs=1, limit=2, **options)
