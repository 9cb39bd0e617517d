"""Images made on one vision-language model and scored on another."""

import json

import pytest
import torch

import bench
from attacks.presets import PRESETS, AttackStep, Preset
from bench.config import Request, resolve
from bench.config.facts import SUITE_FACTS
from bench.errors import UsageError
from bench.models.encoders.load import load_encoder
from bench.models.victims.load import load_victim
from bench.records import load_run
from bench.running.load import prepare
from bench.tables.layouts import build
from bench.verify import verify
from tests.bench.models.victims.test_door import _plug, parrot  # noqa: F401  (a fixture)

LLAVA, FLAMINGO = "mini-llava", "mini-openflamingo"
BOTH = f"{LLAVA},{FLAMINGO}"


def resolved(**options):
    return resolve(Request.of(**{"encoder": "clip", "task": "vqa"} | options))


def cells(configs):
    return [(c.encoder, c.vlm or LLAVA, c.surrogate, c.surrogate_vlm) for c in configs]


def test_models_against_models_give_a_matrix_whose_diagonal_is_the_plain_attack():
    assert cells(resolved(vlm=BOTH, surrogate_vlm=BOTH)) == [
        ("clip", LLAVA, None, None), ("clip", LLAVA, "clip", FLAMINGO),
        ("clip", FLAMINGO, "clip", LLAVA), ("clip", FLAMINGO, None, None),
    ]  # fmt: skip
    assert resolved(vlm=LLAVA, surrogate_vlm=LLAVA) == resolved()


def test_encoders_and_models_may_both_be_others():
    assert cells(resolved(encoder="fare4", vlm=FLAMINGO, surrogate="clip,fare4", surrogate_vlm=BOTH)) == [
        ("fare4", FLAMINGO, "clip", LLAVA), ("fare4", FLAMINGO, "fare4", LLAVA),
        ("fare4", FLAMINGO, "clip", None), ("fare4", FLAMINGO, None, None),
    ]  # fmt: skip
    configs = resolved(vlm=BOTH, surrogate="clip,fare4", surrogate_vlm=f"{BOTH},{FLAMINGO}?shots=4")
    assert len({c.directory for c in configs}) == len(configs)


def test_shots_are_part_of_what_a_model_is():
    config, own = resolved(vlm=FLAMINGO, surrogate_vlm=f"{FLAMINGO}?shots=4,{FLAMINGO}")
    assert (config.surrogate_vlm, own.surrogate_vlm) == (f"{FLAMINGO}?shots=4", None)
    with pytest.raises(UsageError, match="--shots does not say of which model"):
        resolved(vlm=FLAMINGO, surrogate_vlm=LLAVA, shots=4)


def test_a_task_that_asks_no_such_model_is_refused():
    with pytest.raises(UsageError, match=r"--surrogate-vlm: task zeroshot asks no vision-language model"):
        resolved(task="zeroshot", surrogate_vlm=LLAVA)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The direct attack, its transfer both ways and noise, on a few samples."""
    output = tmp_path_factory.mktemp("transfer")
    short = Preset("", (AttackStep("quick", "pgd", 15, "untargeted", "random", 0.2),))
    options = {"limit": 24, "eps": 4, "jobs": 1, "device": "cpu", "progress": False, "output": output}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "quick", short)
        made = bench.run("clip", "vqa", vlm=BOTH, surrogate_vlm=BOTH, attack="quick", **options).runs
    return [*made, *bench.run("clip", "vqa", vlm=BOTH, attack="noise", **options).runs]


def test_the_direct_attack_beats_the_transfer_and_that_beats_noise(runs):
    table = build("models", runs, SUITE_FACTS)
    left = {(row[2], column[0]): cell.measure.estimate.value for (row, column), cell in table.cells.items()}
    for model in ("llava", "openflamingo"):
        (other,) = {"llava", "openflamingo"} - {model}
        assert left[f"{model} clip", model] + 10 < left[f"{other} clip", model] < left["random noise", model] - 10
        assert abs(left["random noise", model] - left["", model]) < 10
    grey = {(row[2], column[0]) for (row, column), cell in table.cells.items() if cell.grey}
    assert grey == {("llava clip", "openflamingo"), ("openflamingo clip", "llava")}


def test_the_header_says_what_the_images_were_made_on(runs):
    (moved,) = [run for run in runs if run.header.surrogate_model and "llava" in run.header.surrogate_model]
    header = moved.header
    assert (header.surrogate, header.attack) == ("clip", "quick-from-clip@mini-llava")
    assert header.surrogate_model == "package:mini/weights/llava"
    assert "openflamingo" in header.model
    assert header.weights["surrogate language"] != header.weights["language"]
    noise = [run.header for run in runs if run.header.attack == "noise"]
    assert all(header.is_floor and not header.doubts for header in noise)
    assert {check["name"] for check in noise[0].checks} >= {"no_errors", "attack_moves_images"}
    assert "beats_noise" not in {check["name"] for check in noise[0].checks}


def test_transferred_images_are_verified_on_the_victim_alone(tmp_path):
    options = {"limit": 4, "eps": 4, "jobs": 1, "device": "cpu", "progress": False, "output": tmp_path}
    (run,) = bench.run(
        "clip", "vqa", vlm=FLAMINGO, surrogate_vlm=LLAVA, attack="noise", save_adversarial=True, **options
    ).runs
    found = verify(run)
    assert (found.mismatches, found.surrogate, found.clean) == ((), True, 4)
    (again,) = resolve(Request.of(**json.loads((run.directory / "run.json").read_text())["config"]))
    assert again.directory == run.directory
    assert load_run(run.directory).header == run.header


def test_two_models_that_see_other_pixels_are_refused(parrot, monkeypatch):  # noqa: F811
    (config,) = resolved(vlm=FLAMINGO, surrogate_vlm=str(parrot), attack="noise", limit=2, device="cpu")
    assert prepare(config).header.surrogate_model == str(parrot)
    victim = type(load_victim(str(parrot), load_encoder("clip")))
    monkeypatch.setattr(victim, "preprocess", lambda self, image: torch.zeros(3, 40, 56))
    with pytest.raises(UsageError, match=r"made on clip@.*parrot cannot be shown.*\(56 x 40 and 48 x 48 pixels\)"):
        prepare(config)
    own = load_encoder("clip").preprocess
    monkeypatch.setattr(victim, "preprocess", lambda self, image: own(image).flip(2))
    with pytest.raises(UsageError, match=r"48 x 48 and 48 x 48 pixels\); choose two that see the same"):
        prepare(config)
