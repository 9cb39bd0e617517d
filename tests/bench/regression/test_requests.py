"""What the gate runs again is what the baseline ran: by the request in its header."""

import pytest

from bench.regression import rerun as gate
from tests.bench.runs import in_memory, make_run


@pytest.fixture
def asked(monkeypatch):
    """The configurations that the gate has carried out, instead of carrying them out."""
    seen = []
    monkeypatch.setattr("bench.running.engines.execute_all", lambda configs, jobs=None: seen.extend(configs) or [])
    return seen


def test_a_rerun_keeps_everything_that_moves_a_number(asked, tmp_path):
    protocol = {"precision": "bf16", "name": "paper", "tower": "native", "compiled": True}
    config = {"arch": "ViT-B-32", "data_root": str(tmp_path), "device": "cuda:7", "batch_size": 3, "force": True}
    run = in_memory(
        {0: [1.0], 0.5: [1.0]}, encoder="fare2", norm="l2", attack="pgd", seed=9, protocol=protocol, config=config,
        model="owner/llava",
    )  # fmt: skip
    gate.rerun([run], 40)
    (config,) = asked
    assert (config.encoder, config.task, config.dataset, config.attack) == ("fare2", "vqa", "mini-vqa", "pgd")
    assert (config.norm, config.eps, config.seed, config.limit) == ("l2", (0.5,), 9, 40)
    assert (config.protocol, config.precision, config.tower, config.vlm) == ("paper", "bf16", "native", "owner/llava")
    assert (config.arch, config.data_root, config.compiled) == ("ViT-B-32", tmp_path, True)
    assert (config.device, config.batch_size, config.force) == ("auto", None, False)
    assert "results" not in str(config.output)


@pytest.mark.parametrize("chosen", ["ascending", "descending"])
def test_a_part_of_a_run_is_made_again_in_the_order_that_the_whole_chose(asked, chosen):
    scores = {0: [1.0], 2: [1.0], 4: [1.0]}
    for protocol, order in (({"radii_order": "adaptive"}, chosen), ({}, "")):
        gate.rerun([in_memory(scores, attack="apgd", protocol=protocol, chosen_order=order)], 3)
    assert [(c.radii_order, c.chosen_order) for c in asked] == [("adaptive", chosen), ("ascending", None)]


def test_a_clean_baseline_is_run_again(asked):
    gate.rerun([in_memory({0: [1.0]}, attack="none", encoder="clip")], 40)
    assert [(config.attack, config.eps) for config in asked] == [("none", (2.0, 4.0))]


def test_the_gate_passes_on_a_clean_baseline(tmp_path):
    import bench

    made = bench.run("clip", "zeroshot", dataset="mini-shape", attack="none", output=tmp_path, jobs=1, progress=False)
    findings = gate.rerun(list(made.runs), 4, jobs=1)
    assert [finding.ok for finding in findings] == [True]


def test_captions_are_not_run_again_in_part(tmp_path):
    caption = make_run(tmp_path / "a", {0: [1.0]}, task="captioning", dataset="mini-caption")
    assert not gate.can_run_in_part(caption)
    assert gate.can_run_in_part(make_run(tmp_path / "b", {0: [1.0]}))


@pytest.mark.parametrize(
    ("protocol", "header", "in_part", "guarded"),
    [
        ({"surrogate": "clip"}, {"task": "zeroshot", "dataset": "mini-shape"}, True, True),
        ({"surrogate": "clip"}, {}, True, False),  # all steps on a vision-language model: dear
        (
            {"surrogate": "clip+fare2", "ensemble": {"clip": 0.5, "fare2": 0.5}},
            {"task": "zeroshot", "dataset": "mini-shape"},
            True,
            True,
        ),
        ({"surrogate": "/gone/weights.pt"}, {"task": "zeroshot", "dataset": "mini-shape"}, False, False),
        ({"surrogate": "clip", "surrogate_model": "mini-llava"}, {}, False, False),
    ],
)
def test_images_made_on_encoders_of_the_suite_are_made_again(protocol, header, in_part, guarded):
    run = in_memory({0: [1.0], 4: [0.0]}, encoder="fare4", protocol=protocol, **header)
    assert (gate.can_run_in_part(run), gate.is_guarded(run)) == (in_part, guarded)
