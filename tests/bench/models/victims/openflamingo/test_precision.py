"""Half precision, weights stored in half precision, activation checkpointing, and the memory said before a run."""

import pytest
import torch

from bench.models.victims.openflamingo import answers, checkpoint, memory
from bench.models.victims.openflamingo.model import OpenFlamingo
from bench.models.victims.openflamingo.prompts import Prompt
from bench.models.victims.openflamingo.vocabulary import read_vocabulary
from tests.bench.models.victims.openflamingo.released import FIXTURE, encoder, images, load, random_model, state, tower
from tests.bench.models.victims.openflamingo.test_checkpoint import skeleton

VARIANTS = ["neox-every2", "mpt-every4", "mpt1b-every1"]
CONTEXT = "Output:two cats lying on a red couch.<|endofchunk|>Output:a bathroom sink with a mirror.<|endofchunk|>"
PROMPTS, ANSWERS = [Prompt(CONTEXT + "<image>Output:")] * 3, ["a man riding a wave."] * 3


def scored(model):
    leaf = images().requires_grad_()
    nll = model.answers(PROMPTS, ANSWERS)(leaf, torch.arange(3)).nll
    return nll.detach(), torch.autograd.grad(nll.sum(), leaf)[0]


def alike(found, wanted) -> float:
    return float(torch.nn.functional.cosine_similarity(found.flatten(), wanted.flatten(), dim=0))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("precision", "tolerance", "angle"), [("bf16", 0.05, 0.95), ("fp16", 0.01, 0.995)])
def test_half_precision_is_near_and_keeps_images_and_losses_whole(tmp_path, variant, precision, tolerance, angle):
    model = load(variant, tmp_path)
    half = model.at(precision)
    assert half.at(precision) is half
    assert model.at("float32") is model
    assert {p.dtype for p in half.perceiver.parameters()} == {half.compute}
    assert {p.dtype for p in model.parameters()} == {torch.float32}  # the model itself stays as it is
    (nll, gradient), (wanted, direction) = scored(half), scored(model)
    assert nll.dtype == gradient.dtype == torch.float32
    assert torch.allclose(nll, wanted, rtol=tolerance)
    assert alike(gradient, direction) > angle
    assert float(gradient.norm() / direction.norm()) == pytest.approx(1, rel=0.1)
    assert half.generate_ids(images(), PROMPTS, max_new_tokens=3).finite.all()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_stored_in_half_precision_are_computed_in_float32(tmp_path, variant, dtype):
    """The same to rounding as float32 weights of the same values, which hold twice the bytes."""
    stored, whole = load(variant, tmp_path, dtype=dtype), load(variant, tmp_path)
    for parameter in (*whole.perceiver.parameters(), *whole.lang_encoder.parameters()):
        parameter.data = parameter.data.to(dtype).float()
    assert {p.dtype for p in stored.lang_encoder.parameters()} == {dtype}
    (nll, gradient), (wanted, direction) = scored(stored), scored(whole)
    assert torch.allclose(nll, wanted, rtol=1e-5)
    assert alike(gradient, direction) > 1 - 1e-6
    twin = stored.at("bf16")
    assert twin.lang_encoder is stored.lang_encoder  # shared, not copied
    assert alike(scored(twin)[1], direction) > 0.9


def test_each_part_keeps_the_precision_of_its_file(tmp_path):
    """As the hub has them: a language model in half precision, a checkpoint in float32."""
    model = load("mpt1b-every1", tmp_path, dtype="auto")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    path, held = tmp_path / "half.pt", {k: v.half() for k, v in state("mpt1b-every1").items()}
    torch.save(held, path)
    loaded = checkpoint.read_checkpoint(path)
    assert {t.dtype for t in loaded.values()} == {torch.float16}
    checkpoint.load(model.perceiver, model.lang_encoder, model.family, loaded, path, None)
    mixed = OpenFlamingo(encoder(), model.perceiver, model.lang_encoder, model.family, model.vocabulary)
    assert {p.dtype for p in mixed.lang_encoder.parameters()} == {torch.float16, torch.float32}
    assert torch.allclose(scored(mixed)[0], scored(load("mpt1b-every1", tmp_path))[0], rtol=0.01)


@pytest.mark.parametrize("kind", ["neox", "mpt", "mpt1b"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_checkpointing_changes_neither_loss_nor_gradient(kind, precision):
    plain = scored(random_model(kind).at(precision))
    model = random_model(kind)
    model.checkpoint_activations()
    nll, gradient = scored(model.at(precision))
    assert torch.equal(nll, plain[0])
    assert torch.allclose(gradient, plain[1], rtol=1e-5, atol=1e-7 * float(plain[1].abs().max()))


def kept(model):
    """Bytes of everything that autograd keeps for the gradient of one step, weights apart; and the prepared answers."""
    weights = {p.data_ptr() for p in model.parameters()}
    found = {}  # by storage; the tensor is held, so that no other takes its address

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    prepared = model.answers(PROMPTS, ANSWERS)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        prepared(images().requires_grad_(), torch.arange(3))
    states = prepared.prefix.states if prepared.prefix is not None else []
    held = sum(2 * keys.numel() * keys.element_size() for keys, _ in states)
    return held + sum(size for size, _ in found.values()), prepared


@pytest.mark.parametrize("kind", ["neox", "mpt", "mpt1b"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("shortest", [answers.SHORTEST, 10**6])
def test_the_estimate_is_what_autograd_keeps(monkeypatch, kind, precision, checkpointing, shortest):
    monkeypatch.setattr(answers, "SHORTEST", shortest)
    model = random_model(kind, every=3).at(precision)
    if checkpointing:
        model.checkpoint_activations()
    measured, prepared = kept(model)
    text = memory.Text(int(prepared.kept[0]), int(prepared.computed[0]), prepared.wanted.shape[1])
    shapes = memory.shapes(model)
    assert (shapes.blind, shapes.gates, shapes.eager) == (2, 2, kind != "neox")
    need = memory.estimate(shapes, 3, checkpointing=checkpointing, text=text)
    assert need.activations == pytest.approx(measured, rel=0.06)
    assert need.weights == sum(t.numel() * t.element_size() for t in {*model.parameters(), *model.buffers()})


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("OpenFlamingo-9B-vitl-mpt7b", 15.7e9),
        ("OpenFlamingo-3B-vitl-mpt1b", 4.5e9),
        ("OpenFlamingo-4B-vitl-rpj3b", 7.5e9),
    ],
)
def test_released_sizes_are_estimated_without_a_byte(name, weights):
    model, family, perceiver, _ = skeleton(name)
    vocabulary = read_vocabulary(str(FIXTURE / "tokenizer"))
    with torch.device("meta"):
        large = tower(224, 14, 1024, 24, 16, 768)
        network = OpenFlamingo(large, perceiver.half(), model.half(), family, vocabulary)
    network.compute = torch.float16
    shapes = memory.shapes(network)
    assert shapes.weights == pytest.approx(weights + 4 * 0.304e9, rel=0.01)
    assert (shapes.patches, shapes.latents, shapes.tower_blocks) == (256, 64, 24)
    one, eight = (memory.estimate(shapes, n, checkpointing=False) for n in (1, 8))
    assert 0.3e9 < one.activations < 2e9
    assert eight.activations == 8 * one.activations
    assert one.total < 20e9
    assert memory.estimate(shapes, 8, checkpointing=True).beside_weights < eight.beside_weights / 2
