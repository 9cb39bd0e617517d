"""The language models' files: settings that are not followed are refused, and nothing in them is run."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from bench.errors import UsageError
from bench.models.victims.openflamingo.language import NormedProjection, family_of, read_family, read_language
from bench.models.victims.openflamingo.vocabulary import Vocabulary, read_vocabulary
from tests.bench.models.victims.openflamingo.released import CONFIGS, FIXTURE


@pytest.mark.parametrize(
    ("kind", "changed", "named"),
    [
        ("mpt", {"expansion_ratio": 2}, "expansion_ratio = 2; only 4"),
        ("mpt", {"logit_scale": "inv_sqrt_d_model"}, "logit_scale = 'inv_sqrt_d_model'; only None"),
        ("mpt", {"norm_type": "rmsnorm"}, "norm_type = 'rmsnorm'; only layer norms"),
        ("mpt", {"no_bias": False}, "no_bias = False; only True"),
        ("mpt", {"attn_config": {"alibi": False}}, "alibi = False; only True"),
        ("mpt", {"attn_config": {"alibi_bias_max": 16}}, "alibi_bias_max = 16; only 8"),
        ("mpt", {"attn_config": {"attn_type": "multiquery_attention"}}, "attn_type = 'multiquery_attention'"),
        ("mpt", {"attn_config": {"prefix_lm": True}}, "prefix_lm = True"),
        ("mpt1b", {"mlp_ratio": 2}, "mlp_ratio = 2; only 4"),
        ("mpt1b", {"alibi": False}, "alibi = False; only True"),
        ("mpt1b", {"alibi_bias_max": 16}, "alibi_bias_max = 16; only 8"),
        ("neox", {"model_type": "llama"}, "of type 'llama'; OpenFlamingo's are mpt, mosaic_gpt"),
    ],
)
def test_settings_that_would_not_be_followed_are_refused(kind, changed, named):
    with pytest.raises(UsageError, match=named):
        family_of(CONFIGS[kind] | changed, "somewhere")


def test_a_folder_without_a_readable_config_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"holds no config\.json"):
        read_family(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UsageError, match="holds no language model that can be read"):
        read_family(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mosaic_gpt"}))
    with pytest.raises(UsageError, match=r"can be read \('d_model'\)"):
        read_family(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS["mpt"]))
    with pytest.raises(UsageError, match="holds no language model that can be read"):
        read_language(str(tmp_path), torch.float32)


def _copied(folder, name: str, **changed) -> str:
    """A language model of the fixture whose config asks for more."""
    for entry in (FIXTURE / name).iterdir():
        (folder / entry.name).write_bytes(entry.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changed))
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    return str(folder)


@pytest.mark.parametrize("name", ["lm-mpt", "lm-mpt1b"])
def test_code_beside_a_language_model_is_not_run(tmp_path, name):
    """The hub's MPT folders name their own code in their configs."""
    own = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    model, _ = read_language(_copied(tmp_path, name, auto_map=own), torch.float32)
    assert type(model).__module__.startswith(("transformers.", "bench."))


def test_attention_that_would_be_fetched_and_run_is_not_used(tmp_path):
    with pytest.raises(UsageError, match="asks for code"):
        read_language(_copied(tmp_path, "lm-mpt", attn_implementation="someone/kernel"), torch.float32)
    model, _ = read_language(_copied(tmp_path, "lm-mpt1b", attn_implementation="someone/kernel"), torch.float32)
    assert model.config._attn_implementation == "eager"


def test_shards_of_pickled_weights_are_read(tmp_path):
    """As the hub has MPT-7B: pytorch_model-0000x-of-0000y.bin."""
    weights = load_file(FIXTURE / "lm-mpt1b" / "model.safetensors")
    (tmp_path / "config.json").write_bytes((FIXTURE / "lm-mpt1b" / "config.json").read_bytes())
    index = {}
    for number in range(2):
        name = f"pytorch_model-0000{number + 1}-of-00002.bin"
        part = {k: weights[k] for k in sorted(weights)[number::2]}
        torch.save(part, tmp_path / name)
        index |= dict.fromkeys(part, name)
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    found, _ = read_language(str(tmp_path), torch.float32)
    wanted, _ = read_language(str(FIXTURE / "lm-mpt1b"), torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(found.parameters(), wanted.parameters(), strict=True))


def test_queries_and_keys_are_clipped_then_normalised_over_the_whole_width():
    torch.manual_seed(0)
    projection = NormedProjection(nn.Linear(6, 18, bias=False), 0.3, 1e-5)
    nn.init.normal_(projection.q_ln.weight)
    nn.init.normal_(projection.k_ln.weight)
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    found = projection.double()(x)
    raw = (x @ projection.linear.weight.T).clamp(-0.3, 0.3)
    for part, norm in ((0, projection.q_ln), (1, projection.k_ln)):
        v = raw[..., 6 * part : 6 * part + 6]
        wanted = (v - v.mean(-1, keepdim=True)) / (v.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt() * norm.weight
        assert torch.allclose(found[..., 6 * part : 6 * part + 6], wanted)
    assert torch.equal(found[..., 12:], raw[..., 12:])


def test_tokens_are_added_in_the_order_of_the_release():
    """End of chunk, image, padding; the tokenizer's own padding token is not used."""
    vocabulary = read_vocabulary(str(FIXTURE / "tokenizer"))
    assert (vocabulary.end, vocabulary.image, vocabulary.pad, len(vocabulary)) == (150, 151, 152, 153)
    assert vocabulary.encode("<image>Output:<|endofchunk|>")[::3] == [151, 150]
    spelled = vocabulary.spell()
    assert spelled[150] is None
    assert [spelled[i] for i in (27, 151, 152, 0)] == [":", "", "", ""]


def test_a_padding_token_that_the_files_name_is_kept(tmp_path):
    for entry in (FIXTURE / "tokenizer").iterdir():
        (tmp_path / entry.name).write_bytes(entry.read_bytes())
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"pad_token": {"content": "<|padding|>"}}))
    vocabulary = read_vocabulary(str(tmp_path))
    assert (vocabulary.pad, len(vocabulary)) == (1, 152)


def test_decoded_text_loses_spaces_before_marks_unless_the_files_say_no(tmp_path):
    vocabulary = read_vocabulary(str(FIXTURE / "tokenizer"))
    ids = vocabulary.encode("a cat , a dog . it 's it")
    assert vocabulary.decode([*ids, vocabulary.end, *ids]) == "a cat, a dog. it's it"
    kept = Vocabulary(vocabulary.tokenizer, clean_spaces=False)
    assert kept.decode(ids) == "a cat , a dog . it 's it"


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"holds no tokenizer\.json"):
        read_vocabulary(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UsageError, match="is no tokenizer that can be read"):
        read_vocabulary(str(tmp_path))


def test_a_text_that_the_original_would_cut_is_refused():
    vocabulary = read_vocabulary(str(FIXTURE / "tokenizer"))
    assert len(vocabulary.encode(":." * 1000)) <= 2000
    with pytest.raises(UsageError, match=r"a prompt of 2001 tokens is longer than OpenFlamingo's 2000"):
        vocabulary.encode("Z" * 2001)
