"""Perceiver and gated blocks against a plain second implementation, and who sees what."""

import pytest
import torch
from torch import Tensor, nn

from bench.errors import UsageError
from bench.models.victims.openflamingo.gates import GatedBlock, GatedLayer, Sight, seeing
from bench.models.victims.openflamingo.perceiver import HEAD, Perceiver
from tests.bench.models.victims.openflamingo.released import images, random_model


def normed(x: Tensor, norm: nn.Module) -> Tensor:
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * norm.weight + norm.bias


def fed(x: Tensor, ff: nn.Sequential) -> Tensor:
    hidden = normed(x, ff[0]) @ ff[1].weight.T
    return 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5)) @ ff[3].weight.T


def attended(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """One query (C,) after another, one head after another."""
    found = []
    for head in range(len(queries) // HEAD):
        part = slice(head * HEAD, (head + 1) * HEAD)
        weights = (keys[:, part] @ queries[part] / HEAD**0.5).softmax(0)
        found.append(weights @ values[:, part])
    return torch.cat(found)


def scrambled(module: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.double()


def test_the_perceiver_is_its_definition():
    perceiver = scrambled(Perceiver(6, latents=3, depth=2, inner=2 * HEAD, hidden=10))
    tokens = torch.randn(2, 5, 6, dtype=torch.float64)
    wanted = []
    for image in tokens:
        latents = perceiver.latents
        for attention, ff in perceiver.layers:
            own = normed(latents, attention.norm_latents)
            pairs = torch.cat([normed(image, attention.norm_media), own]) @ attention.to_kv.weight.T
            keys, values = pairs[:, : 2 * HEAD], pairs[:, 2 * HEAD :]
            found = torch.stack([attended(q, keys, values) for q in own @ attention.to_q.weight.T])
            latents = found @ attention.to_out.weight.T + latents
            latents = fed(latents, ff) + latents
        wanted.append(normed(latents, perceiver.norm))
    assert torch.allclose(perceiver(tokens), torch.stack(wanted))


def test_a_gated_block_is_its_definition():
    """Each token sees its own image's latents; one that sees none still passes the feed-forward half."""
    block = scrambled(GatedBlock(7, 6, inner=2 * HEAD, hidden=9))
    hidden, latents = torch.randn(1, 4, 7, dtype=torch.float64), torch.randn(1, 3, 2, 6, dtype=torch.float64)
    sight = Sight(latents, torch.tensor([[0, 1, 3, 3]]))
    wanted = []
    for token, image in zip(hidden[0], (None, 0, 2, 2), strict=True):
        if image is not None:
            pairs = latents[0, image] @ block.attn.to_kv.weight.T
            query = normed(token, block.attn.norm) @ block.attn.to_q.weight.T
            found = attended(query, pairs[:, : 2 * HEAD], pairs[:, 2 * HEAD :])
            token = block.attn_gate.tanh() * (found @ block.attn.to_out.weight.T) + token
        wanted.append(block.ff_gate.tanh() * fed(token, block.ff) + token)
    assert torch.allclose(block(hidden, sight.keys, sight.allowed, sight.sighted)[0], torch.stack(wanted))


def test_fresh_gates_are_shut():
    hidden, sight = torch.randn(2, 4, 7), Sight(torch.randn(2, 1, 3, 6), torch.ones(2, 4, dtype=torch.long))
    assert torch.equal(GatedBlock(7, 6)(hidden, sight.keys, sight.allowed, sight.sighted), hidden)


def test_a_gate_stands_before_its_layer_and_sees_only_inside():
    layer = GatedLayer(scrambled(GatedBlock(7, 6)), nn.Threshold(0.0, 0.0).double())
    hidden = torch.randn(1, 2, 7, dtype=torch.float64)
    sight = Sight(torch.randn(1, 1, 3, 6, dtype=torch.float64), torch.ones(1, 2, dtype=torch.long))
    with seeing(sight):
        found = layer(hidden)
    gate = layer.gated_cross_attn_layer
    assert torch.equal(found, gate(hidden, sight.keys, sight.allowed, sight.sighted).relu())
    with pytest.raises(LookupError):
        layer(hidden)


@pytest.mark.parametrize("kind", ["neox", "mpt", "mpt1b"])
def test_tokens_depend_on_the_image_before_them_and_none_after(kind):
    """Logits of each stretch of text, by which of three images moves them; text before the first by none."""
    model = random_model(kind)
    tag, word = model.vocabulary.image, model.vocabulary.encode("a")[0]
    ids = torch.tensor([[word, word, tag, word, tag, word, word, tag, word]])
    stretches = [(slice(0, 2), 0), (slice(2, 4), 1), (slice(4, 7), 2), (slice(7, 9), 3)]
    leaf = images()[None].requires_grad_()
    logits = model.logits(leaf, ids, torch.ones_like(ids))
    for stretch, own in stretches:
        (gradient,) = torch.autograd.grad(logits[0, stretch].square().sum(), leaf, retain_graph=True, allow_unused=True)
        moved = gradient[0].flatten(1).abs().amax(1) > 0
        # earlier images reach later text through the text between
        assert moved.tolist() == [number <= own for number in (1, 2, 3)]


def test_more_tags_than_images_are_refused():
    model = random_model("neox")
    ids = torch.full((1, 3), model.vocabulary.image)
    with pytest.raises(UsageError, match="a text has 3 <image> tags for 2 images"):
        model.logits(images()[None, :2], ids, torch.ones_like(ids))
    model.logits(images()[None], ids[:, :2], torch.ones(1, 2, dtype=torch.long))  # fewer leave the last unused


@pytest.mark.parametrize("kind", ["neox", "mpt", "mpt1b"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_changes_nothing(kind, side):
    model = random_model(kind)
    ids = torch.tensor([model.vocabulary.encode("Output:a<|endofchunk|><image>Output:two cats")])
    mask, pad = torch.ones_like(ids), (4, 0) if side == "left" else (0, 4)
    kept = slice(4, None) if side == "left" else slice(None, -4)
    padded = nn.functional.pad(ids, pad, value=model.vocabulary.pad)
    found = model.logits(images()[None, :1], padded, nn.functional.pad(mask, pad))[:, kept]
    assert torch.allclose(found, model.logits(images()[None, :1], ids, mask), atol=1e-3, rtol=1e-4)
