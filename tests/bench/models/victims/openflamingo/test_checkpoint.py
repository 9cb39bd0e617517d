"""Released checkpoints: every name and shape, and refusals that name what is missing or left over."""

import json
import os
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.errors import UsageError
from bench.models.victims.openflamingo import checkpoint
from bench.models.victims.openflamingo.language import family_of
from bench.models.victims.openflamingo.model import load_openflamingo
from bench.models.victims.openflamingo.releases import RELEASES
from tests.bench.models.victims.openflamingo.released import FIXTURE, HERE, encoder, language, load, state

MPT_7B = {"model_type": "mpt", "d_model": 4096, "n_heads": 32, "n_layers": 32, "vocab_size": 50432}
MPT_1B = {
    "model_type": "mosaic_gpt",
    "d_model": 2048,
    "n_heads": 16,
    "n_layers": 24,
    "vocab_size": 50432,
    "max_seq_len": 2048,
    "attn_qk_ln": True,
}
REDPAJAMA_3B = {
    "model_type": "gpt_neox",
    "hidden_size": 2560,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "intermediate_size": 10240,
    "vocab_size": 50432,
    "rotary_pct": 1.0,
    "use_parallel_residual": False,
}
SIZES = {
    "OpenFlamingo-9B-vitl-mpt7b": (MPT_7B, 4, 7.83e9),
    "OpenFlamingo-3B-vitl-mpt1b": (MPT_1B, 1, 2.26e9),
    "OpenFlamingo-4B-vitl-rpj3b": (REDPAJAMA_3B, 2, 3.74e9),
}


def skeleton(name):
    """A released model without a byte of weights, and the names and shapes of its checkpoint."""
    config, every, _ = SIZES[name]
    family, config = family_of(config, name)
    listed = json.loads((HERE / "released-keys" / f"{name}.json").read_text())
    with torch.device("meta"):
        model = family.kind(config)
        sizes = checkpoint.Architecture.standard(1024, config.hidden_size, every)
        perceiver = checkpoint.build(model, family, sizes, 50280)
        held = {key: torch.empty(shape) for key, shape in listed.items()}
    return model, family, perceiver, held


@pytest.mark.parametrize("name", SIZES)
def test_every_released_name_and_shape_has_its_parameter(name):
    model, family, perceiver, held = skeleton(name)
    parameters = (*model.parameters(), *perceiver.parameters())
    assert all(p.is_meta for p in parameters)
    assert sum(p.numel() for p in parameters) == pytest.approx(SIZES[name][2], rel=0.01)
    own = {key: p.shape for key, p in checkpoint.released(perceiver, model, family).items()}
    buffers = {key for key in held if key.endswith(".attention.rotary_emb.inv_freq")}
    assert own == {key: t.shape for key, t in held.items() if key not in buffers}
    assert len(buffers) == (32 if "rpj3b" in name else 0)
    assert checkpoint.architecture(held, family, name) == checkpoint.Architecture.standard(
        1024, model.config.hidden_size, SIZES[name][1]
    )
    checkpoint.load(perceiver, model, family, held, name, None)
    head, embeddings = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    assert (head is embeddings) == ("mpt" in name)


@pytest.mark.parametrize("name", SIZES)
def test_a_released_checkpoint_with_any_tensor_missing_is_refused(name):
    model, family, perceiver, held = skeleton(name)
    for key in checkpoint.released(perceiver, model, family):
        rest = {k: v for k, v in held.items() if k != key}
        with pytest.raises(UsageError, match=re.escape(f"1 tensors missing ['{key}'], 0 unknown")):
            checkpoint.load(perceiver, model, family, rest, name, None)


def test_each_release_names_its_language_model_and_its_gates():
    assert len(RELEASES) == 5
    for release in RELEASES:
        assert release.every == SIZES[release.repository.removesuffix("-langinstruct")][1]
        assert release.language.count("/") == 1


@pytest.fixture
def neox(tmp_path):
    """The folder of a language model, and a function that loads a changed checkpoint."""

    def go(changed, name="checkpoint.pt", variant="neox-every2", **options):
        path = tmp_path / name
        torch.save(changed, path)
        return load_openflamingo(str(path), str(language(variant, tmp_path)), encoder(), **options)

    return go


def test_a_wrapped_checkpoint_of_parallel_training_is_the_same(neox):
    plain = neox(state("neox-every2"))
    wrapped = neox({"epoch": 3, "model_state_dict": {f"module.{k}": v for k, v in state("neox-every2").items()}})
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), wrapped.parameters(), strict=True))
    with pytest.raises(UsageError, match=r"lacks 'perceiver\.latents'"):  # elsewhere the prefix is not taken off
        neox({f"module.{k}": v for k, v in state("neox-every2").items()})


def test_embeddings_and_head_are_the_checkpoints(neox):
    model = neox(state("neox-every2"))
    held = state("neox-every2")
    assert torch.equal(model.lang_encoder.gpt_neox.embed_in.weight, held["lang_encoder.gpt_neox.embed_in.weight"])
    assert torch.equal(model.lang_encoder.lm_head.weight, held["lang_encoder.embed_out.weight"])
    assert model.lang_encoder.lm_head.weight is not model.lang_encoder.gpt_neox.embed_in.weight


@pytest.mark.parametrize("variant", ["mpt-every4", "mpt1b-every1"])
def test_the_head_of_mpt_stays_tied(variant, tmp_path):
    model = load(variant, tmp_path)
    assert model.lang_encoder.lm_head.weight is model.lang_encoder.transformer.wte.weight
    assert torch.equal(model.lang_encoder.lm_head.weight, state(variant)["lang_encoder.transformer.wte.weight"])


@pytest.mark.parametrize(
    "name",
    [
        "lang_encoder.embed_out.weight",
        "perceiver.layers.5.1.3.weight",
        "lang_encoder.gpt_neox.layers.3.gated_cross_attn_layer.ff_gate",
    ],
)
def test_a_missing_tensor_is_named(neox, name):
    held = state("neox-every2")
    del held[name]
    with pytest.raises(UsageError, match=re.escape(name)):
        neox(held)


@pytest.mark.parametrize(
    "name",
    [
        "lang_encoder.lm_head.weight",
        "lang_encoder.gpt_neox.layers.0.decoder_layer.attention.dense.weight",
        "lang_encoder.gpt_neox.layers.9.decoder_layer.attention.rotary_emb.inv_freq",  # of a layer that is not there
        "lang_encoder.gpt_neox.layers.1.gated_cross_attn_layer.attn.bias",
        "vision_encoder.class_embedding",
    ],
)
def test_a_surplus_tensor_is_named(neox, name):
    with pytest.raises(UsageError, match=rf"1 unknown \['{re.escape(name)}'\]"):
        neox(state("neox-every2") | {name: torch.zeros(4)})


def test_the_buffers_of_gpt_neox_are_passed_over(neox):
    place = "lang_encoder.gpt_neox.layers.0.decoder_layer.attention."
    held = state("neox-every2") | {f"{place}bias": torch.zeros(1, 1, 8, 8), f"{place}masked_bias": torch.tensor(-1e9)}
    assert any(k.endswith("inv_freq") for k in held)
    neox(held)
    mpt = "lang_encoder.transformer.blocks.0.decoder_layer.attention.bias"
    with pytest.raises(UsageError, match=re.escape(mpt)):
        neox(state("mpt-every4") | {mpt: torch.zeros(4)}, variant="mpt-every4")


def test_a_tensor_of_another_shape_is_named(neox):
    name = "perceiver.layers.2.0.to_q.weight"
    with pytest.raises(UsageError, match=rf"{re.escape(name)} \(512, 8\), not \(512, 16\)"):
        neox(state("neox-every2") | {name: torch.zeros(512, 8)})


def test_a_checkpoint_for_another_language_model_is_refused(neox, tmp_path):
    with pytest.raises(UsageError, match="for another language model than GPTNeoXForCausalLM"):
        neox(state("mpt-every4"))
    with pytest.raises(UsageError, match="first gated block at layer 2, not 1"):
        neox(state("neox-every2"), every=1)


def test_rows_must_be_the_tokenizers(neox):
    held = state("neox-every2")
    for name in ("lang_encoder.embed_out.weight", "lang_encoder.gpt_neox.embed_in.weight"):
        held[name] = held[name][:150]
    with pytest.raises(UsageError, match="150 embeddings, the language model's tokenizer 153 tokens"):
        neox(held)


def test_an_encoder_of_another_width_is_refused(neox):
    held = {k: v for k, v in state("neox-every2").items() if not k.startswith("perceiver")}
    wide = checkpoint.Perceiver(24)
    held |= {f"perceiver.{k}": v for k, v in wide.state_dict().items()}
    gates = [k for k in held if k.endswith("attn.to_kv.weight")]
    held |= {k: torch.zeros(1024, 24) for k in gates}
    with pytest.raises(UsageError, match="expects features of width 24, the encoder gives 16"):
        neox(held)


def test_what_is_no_checkpoint_is_refused_and_nothing_runs(neox, tmp_path):
    class Runs:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    with pytest.raises(UsageError, match="holds Python objects"):
        neox(state("neox-every2") | {"extra": Runs()})
    assert not (tmp_path / "ran").exists()
    with pytest.raises(UsageError, match="not a state dict of tensors"):
        neox({"model_state_dict": {"module.a": 1}})
    with pytest.raises(UsageError, match="not a state dict of tensors"):
        neox([torch.zeros(1)])
    broken = state("neox-every2")
    broken["perceiver.latents"][0, 0] = torch.nan
    with pytest.raises(UsageError, match=r"NaN or infinite weights in \['perceiver.latents'\]"):
        neox(broken)
    (tmp_path / "page.pt").write_text("<html>")
    with pytest.raises(UsageError, match="is a text file"):
        checkpoint.read_checkpoint(tmp_path / "page.pt")
    with pytest.raises(UsageError, match="no such checkpoint"):
        checkpoint.read_checkpoint(tmp_path / "none.pt")


def test_older_and_other_files_are_read_as_well(tmp_path):
    held = {"perceiver.latents": torch.arange(4.0)}
    torch.save(held, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file(held, tmp_path / "new.safetensors")
    for name in ("old.pt", "new.safetensors"):
        assert torch.equal(checkpoint.read_checkpoint(tmp_path / name)["perceiver.latents"], torch.arange(4.0))


def test_norms_of_mpt_1b_must_be_in_its_files(tmp_path):
    """Without its two norms a layer MPT-1B runs, and says something else."""
    folder = language("mpt1b-every1", tmp_path)
    weights = load_file(FIXTURE / "lm-mpt1b" / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save_file({k: v for k, v in weights.items() if not k.endswith("q_ln.weight")}, folder / "model.safetensors")
    with pytest.raises(UsageError, match=r"2 tensors missing \['transformer\.blocks\.0\.attn\.Wqkv\.q_ln\.weight'"):
        load("mpt1b-every1", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(config | {"attn_qk_ln": False}))
    (folder / "model.safetensors").unlink()
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(UsageError, match=r"4 unknown .*q_ln"):
        load("mpt1b-every1", tmp_path)
