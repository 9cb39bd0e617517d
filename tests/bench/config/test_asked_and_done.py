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
