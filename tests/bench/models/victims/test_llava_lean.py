"""The Llama of an attacked LLaVA: transformers' own numbers, with the last block computed where it is read."""

import pytest
import torch
from transformers import LlamaConfig, LlamaModel
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from bench.models.victims.llava.lean import FrozenNorm, can_read_last, read_last
from bench.models.victims.llava.model import load_llava
from tests.bench.models.llava_checkpoint import SIZE, small_encoder, write_llava


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    folder = write_llava(tmp_path_factory.mktemp("hub") / "llava-1.5-small-hf")
    return load_llava(str(folder), small_encoder(), conversation_name="vicuna_v1")


def _sequences(width: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Embeddings, mask and positions of three sequences of 9 tokens, padded on the left."""
    embedded = torch.randn(3, 9, width, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(3, 9, dtype=torch.int64)
    mask[1, :4], mask[2, :2] = 0, 0
    return embedded.requires_grad_(), mask, (mask.cumsum(1) - 1).clamp(min=0)


@pytest.mark.parametrize("key_heads", [4, 2])
def test_the_tokens_that_are_read_have_transformers_own_states_and_gradients(key_heads):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    model = LlamaModel(LlamaConfig(**sizes, vocab_size=20, num_key_value_heads=key_heads)).eval()
    assert can_read_last(model)
    embedded, mask, positions = _sequences(32)
    expected = model(inputs_embeds=embedded, attention_mask=mask, position_ids=positions).last_hidden_state[:, -2:]
    found = read_last(model, embedded, mask, positions, [], 2)
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)
    ours, theirs = (torch.autograd.grad(x.square().sum(), embedded)[0] for x in (found, expected))
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5 * theirs.abs().max().item())


@pytest.mark.parametrize("count", [1, 3, 8])
def test_a_prefix_stands_in_front_of_what_is_read(llava, count):
    model = llava.model.model.language_model
    embedded, mask, positions = _sequences(model.config.hidden_size)
    states = llava.prefix.states(llava.device)
    places, mask = positions + llava.prefix.kept, torch.nn.functional.pad(mask, (llava.prefix.kept, 0), value=1)
    expected = llava._hidden(embedded, mask, places, llava.prefix.fixed(llava.device))[:, -count:]
    assert torch.allclose(read_last(model, embedded, mask, places, states, count), expected, rtol=1e-5, atol=1e-5)


def test_the_last_block_computes_the_answers_tokens_only(llava):
    answers, seen = llava.answers(["what?", "a dog?"], ["two birds", "yes"]), []
    layers = llava.model.model.language_model.layers
    hooks = [block.mlp.register_forward_hook(lambda *call: seen.append(call[1][0].shape[1])) for block in layers]
    answers(torch.rand(2, 3, SIZE, SIZE), torch.arange(2))
    for hook in hooks:
        hook.remove()
    assert seen == [*[answers.ids.shape[1] - 1] * (len(layers) - 1), answers.longest]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_frozen_norm_is_the_norm_and_its_weight_gets_no_gradient(dtype):
    norm = LlamaRMSNorm(16, eps=1e-5).to(dtype)
    torch.nn.init.normal_(norm.weight)
    frozen, x = FrozenNorm(norm), (3 * torch.randn(4, 5, 16)).to(dtype).requires_grad_()
    assert torch.equal(frozen(x), norm(x))
    weights = torch.rand(4, 5, 16)
    ours, theirs = (torch.autograd.grad((layer(x).float() * weights).sum(), x)[0] for layer in (frozen, norm))
    assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6 if dtype == torch.float32 else 2e-3)
    frozen(x.detach().requires_grad_()).sum().backward()
    assert frozen.weight.grad is None


def test_no_norm_of_an_attacked_language_model_is_left_as_it_was(llava):
    kinds = [type(module) for module in llava.model.modules()]
    assert LlamaRMSNorm not in kinds
    assert kinds.count(FrozenNorm) == 2 * len(llava.model.model.language_model.layers) + 1
