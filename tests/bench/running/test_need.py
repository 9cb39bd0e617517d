"""What a run needs of memory, before anything is loaded: what the loaded model says, and what is not known."""

from dataclasses import replace

import pytest

from bench.config import Request, resolve
from bench.models.encoders.load import load_encoder
from bench.models.victims.load import load_victim
from bench.running.engines.need import need_of, shapes_of, tower_of
from bench.running.header import vlm_of
from bench.trust.code import config_of
from tests.bench.running.test_driving import GB


def config(**options):
    (found,) = resolve(Request.of(**{"encoder": "fare2", "task": "vqa"} | options))
    return found


def test_a_llava_is_described_as_the_loaded_model_describes_itself():
    asked = config()
    encoder = load_encoder("fare2", "mini", None)
    llava = load_victim(vlm_of(asked), encoder)
    tower = tower_of(asked)
    loaded, described = llava.shapes(), shapes_of(config_of(llava_folder(asked)), tower, 0)
    upper = {"weights", "prefix", "stored", "tower"}
    for name in set(vars(loaded)) - upper:
        assert getattr(described, name) == getattr(loaded, name), name
    assert (described.tower.width, described.tower.blocks) == (loaded.tower.width, loaded.tower.blocks + 1)
    assert described.tower.mlp >= loaded.tower.mlp
    held = sum(p.numel() * 4 for p in (*encoder.visual.parameters(), *encoder.text.parameters()))
    assert tower.weights == pytest.approx(held, rel=0.1)


def llava_folder(asked):
    from bench.models.encoders.catalogue import resolve_path

    return resolve_path(vlm_of(asked))


def test_the_estimate_is_above_what_the_loaded_model_says_and_not_far():
    asked = config()
    llava = load_victim(vlm_of(asked), load_encoder("fare2", "mini", None))
    said = llava.need(1, checkpointing=True).total
    assert said <= need_of(asked) <= 2.5 * said


def test_a_vit_l_14_at_224_px():
    """Its two towers hold 428 million numbers, 1.71 GB in float32."""
    asked = config(suite="paper", encoder="clip", task="zeroshot", dataset="cifar10")
    assert tower_of(asked).weights == pytest.approx(1.71 * GB, rel=0.03)
    assert 1.8 * GB < need_of(asked) < 3 * GB
    assert need_of(replace(asked, batch_size=16)) > need_of(asked) + 3 * GB


@pytest.mark.parametrize(
    "options",
    [{"vlm": "mini-openflamingo"}, {"precision": "bf16"}, {"surrogate": "clip"}, {"vlm": "./nowhere"}],
)
def test_what_is_not_known_is_not_guessed(options):
    assert need_of(config(**options)) is None
