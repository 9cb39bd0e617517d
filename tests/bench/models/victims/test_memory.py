"""The bytes announced before an attack, against what autograd keeps; and what a 7B model needs by the same formula."""

from types import SimpleNamespace

import pytest
import torch
from open_clip.transformer import QuickGELU, VisionTransformer
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from bench.errors import UsageError
from bench.models.encoders.encoder import Encoder, Preprocessing, TextTower
from bench.models.victims import memory
from bench.models.victims.llava.memory import estimate
from bench.models.victims.llava.model import Llava, load_llava
from tests.bench.models.llava_checkpoint import small_encoder, write_llava

QUESTIONS = ["what is in the image? Answer the question using a single word or phrase."] * 3
ANSWERS = ["a red car near the sea"] * 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_llava(tmp_path_factory.mktemp("hub") / "llava")


def _load(folder, **options) -> Llava:
    return load_llava(str(folder), small_encoder(), conversation_name="vicuna_v1", **options)


def _images(llava, count=3):
    size = llava.encoder.preprocessing.size
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1)).requires_grad_()


def _kept(llava):
    """Bytes of everything that autograd keeps for the gradient of one step, weights apart; and the prepared answers."""
    weights = {p.data_ptr() for p in llava.parameters()}
    kept = {}  # by storage; the tensor is held, so that no other takes its address

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    prepared = llava.answers(QUESTIONS, ANSWERS)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        prepared(_images(llava), torch.arange(3))
    return sum(size for size, _ in kept.values()), prepared


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    ("options", "precision"),
    [({}, "float32"), ({}, "bf16"), ({"dtype": "auto"}, "float32"), ({"tower": "native"}, "float32")],
)
def test_the_estimate_is_what_autograd_keeps(folder, options, precision, checkpointing):
    llava = _load(folder, **options).at(precision)
    if checkpointing:
        llava.checkpoint_activations()
    measured, prepared = _kept(llava)
    text = prepared.ids.shape[1] - llava.patches
    shapes = llava.shapes()
    need = estimate(shapes, 3, checkpointing=checkpointing, text=text, answer=prepared.longest)
    assert need.activations == pytest.approx(measured, rel=0.15)
    assert shapes.weights == sum(t.numel() * t.element_size() for t in {*llava.parameters(), *llava.buffers()})


@pytest.mark.parametrize(("options", "precision"), [({}, "float32"), ({"tower": "native"}, "float32"), ({}, "bf16")])
def test_checkpointing_changes_neither_loss_nor_gradient(folder, options, precision):
    results = []
    for checkpointing in (False, True):
        llava = _load(folder, **options)
        if checkpointing:
            llava.checkpoint_activations()
        images = _images(llava)
        nll = llava.at(precision).answers(QUESTIONS, ANSWERS)(images, torch.arange(3)).nll
        results.append((nll.detach(), *torch.autograd.grad(nll.sum(), images)))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.allclose(results[0][1], results[1][1], rtol=1e-5, atol=1e-9)


def test_what_does_not_fit_is_refused_with_a_batch_size_that_does(folder):
    llava = _load(folder)
    shapes = llava.shapes()
    four = estimate(shapes, 4, checkpointing=True).beside_weights
    with pytest.raises(UsageError, match=r"even with activation checkpointing .* use --batch-size 4$"):
        memory.plan(llava, 9, four + 1)
    assert not llava.checkpoints
    with pytest.raises(UsageError, match="use a larger device"):
        memory.plan(llava, None, 1000)


def test_checkpointing_is_turned_on_only_where_it_is_needed(folder):
    llava = _load(folder)
    shapes = llava.shapes()
    plain = estimate(shapes, 6, checkpointing=False).beside_weights
    assert memory.largest_batch(llava, plain, checkpointing=False) == 6
    assert memory.largest_batch(llava, plain - 1, checkpointing=False) == 5
    assert "an attack on 6 images at a time needs about" in memory.plan(llava, 6, plain)
    assert not llava.checkpoints
    assert "checkpointing, which is on" in memory.plan(llava, 6, plain - 1)
    assert llava.checkpoints
    assert memory.plan(llava, 6, None)  # on a CPU nothing is held to a limit


@pytest.fixture(scope="module")
def seven() -> Llava:
    """LLaVA-1.5-7B around ViT-L/14 at 224 px, in half precision, without a byte of weights."""
    vision = CLIPVisionConfig(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16)
    config = LlavaConfig(vision_config=vision.to_dict(), text_config=LlamaConfig(vocab_size=32064).to_dict())
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config).half()
        visual = VisionTransformer(224, 14, 1024, 24, 16, 4.0, output_dim=768, act_layer=QuickGELU)
        encoder = Encoder(visual, Preprocessing(224, (0.5,) * 3, (0.5,) * 3), TextTower(torch.nn.Identity(), None))
        talk = SimpleNamespace(before=list(range(35)))
        return Llava(model, SimpleNamespace(), encoder, talk, pads=True)  # type: ignore[arg-type]


def test_a_7b_model_fits_24_gb_at_batch_1_and_80_gb_at_batch_8(seven):
    seven.compute = torch.float16
    shapes = seven.shapes()
    assert (shapes.patches, shapes.tower.blocks, shapes.prefix) == (256, 23, 35)
    assert shapes.weights == pytest.approx(2 * 6.76e9 + 4 * 0.304e9, rel=0.01)
    assert estimate(shapes, 1, checkpointing=False).total < 22e9
    assert estimate(shapes, 8, checkpointing=False).total < 40e9
    assert memory.largest_batch(seven, int(78e9) - shapes.weights, checkpointing=False) >= 8
    seven.compute = torch.float32  # the search that no half-precision verdict replaces
    assert estimate(seven.shapes(), 1, checkpointing=False).total < 22e9
    assert estimate(seven.shapes(), 8, checkpointing=False).total < 60e9
