"""A defence that looks with the encoder from which the victim's was fine-tuned is given that one."""

import pytest
import torch

from bench.config import Request, resolve
from bench.errors import UsageError
from bench.models.encoders.load import digest, load_encoder, original_of
from bench.running.load import prepare


def prepared(encoder, defence):
    asked = {"task": ("zeroshot",), "dataset": ("mini-shape",), "eps": (4.0,), "limit": 2}
    (config,) = resolve(Request(encoder=(encoder,), defence=(defence,), **asked))
    return prepare(config)


def test_a_fine_tuned_encoder_has_an_original():
    assert (original_of("fare4"), original_of("tecoa"), original_of("clip")) == ("clip", "clip", None)
    setup, clip = prepared("fare4", "ttc"), load_encoder("clip")
    assert setup.header.weights["original"] == digest(clip.visual)
    images = setup.images[[0, 1]]
    assert torch.equal(setup.victim.see.original(images), clip(images))


@pytest.mark.parametrize(("encoder", "defence"), [("clip", "ttc"), ("fare4", "ttc?tau_of=own"), ("fare4", "jpeg")])
def test_nothing_is_loaded_that_is_not_asked_for(encoder, defence):
    setup = prepared(encoder, defence)
    assert setup.victim.see.original is None
    assert "original" not in setup.header.weights


def test_of_a_checkpoint_it_is_not_known():
    with pytest.raises(UsageError, match="no row of the catalogue"):
        original_of("mine/tower.safetensors")
