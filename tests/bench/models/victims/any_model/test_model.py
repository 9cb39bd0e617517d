"""Any model as a victim: sizes of images, half precision, memory, what it tells the header, and what is refused."""

import json
import shutil

import pytest
import torch
from PIL import Image

from bench.errors import UsageError
from bench.models.victims.any_model import memory
from bench.models.victims.any_model.asking import WITHOUT_TEMPLATE
from bench.models.victims.any_model.load import load_any_model
from bench.models.victims.any_model.model import Finite
from bench.models.victims.any_model.pixels import ImageInputs, pil
from bench.models.victims.family import Source
from bench.models.victims.load import family_of, load_victim
from bench.models.victims.loaded import OnPixels
from tests.bench.models.victims.any_model.kinds import write
from tests.bench.models.victims.any_model.measure import ANSWERS, QUESTIONS, images


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    return write("Qwen2.5-VL", tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module")
def victim(qwen):
    return load_any_model(str(qwen), None)


def _copy(folder, tmp_path, name, **changes):
    """The same checkpoint with other values in one of its JSON files; None takes a key out."""
    shutil.copytree(folder, tmp_path / "copy")
    path = tmp_path / "copy" / name
    data = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in data.items() if value is not None}))
    return str(tmp_path / "copy")


# ---- Whose checkpoint it is ------------------------------------------------------------------------------------------


def test_the_family_reads_what_transformers_knows_and_leaves_llava_to_its_own(qwen):
    assert family_of(str(qwen))[0] == "transformers"
    owners = {"clip_vision_model": "llava", "pixtral": "transformers", "siglip_vision_model": "transformers"}
    for tower, owner in owners.items():
        source = Source("x", {"model_type": "llava", "vision_config": {"model_type": tower}})
        assert next(name for name in ("llava", "transformers") if _family(name).owns(source)) == owner
    assert _family("llava").owns(Source("x", {"model_type": "llava"}))
    assert not _family("transformers").owns(Source("x", {"model_type": "llama"}))


def _family(name):
    from bench.models.victims.load import family

    return family(name)


def test_a_model_that_needs_code_of_its_own_is_refused_by_name(qwen, tmp_path):
    custom = _copy(qwen, tmp_path, "config.json", model_type="minicpmv", auto_map={"AutoModel": "m.Model"})
    with pytest.raises(UsageError, match=r"holds a model of type 'minicpmv'; the victims that can be loaded are"):
        load_victim(custom, None)
    with pytest.raises(UsageError, match=r"config\.json: auto_map asks for code of the checkpoint's own"):
        load_victim(f"transformers:{custom}", None)


def test_a_checkpoint_that_lacks_weights_or_files_is_refused(qwen, tmp_path):
    (shutil.copytree(qwen, tmp_path / "a") / "tokenizer.json").unlink()
    with pytest.raises(UsageError, match=r"lacks tokenizer\.json or tokenizer\.model; download the whole folder"):
        load_victim(str(tmp_path / "a"), None)
    from safetensors.torch import load_file, save_file

    state = load_file(shutil.copytree(qwen, tmp_path / "b") / "model.safetensors")
    state.pop(next(name for name in state if "lm_head" in name))
    save_file(state, tmp_path / "b" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError, match=r"lacks 1 of the model's tensors: \['lm_head\.weight'\]; download it again"):
        load_victim(str(tmp_path / "b"), None)


def test_without_a_template_a_model_is_refused_unless_its_kind_never_had_one(qwen, tmp_path):
    shutil.copytree(qwen, tmp_path / "copy")
    (tmp_path / "copy" / "chat_template.jinja").unlink()
    with pytest.raises(UsageError, match=r"has no chat template, and none is known for models of type 'qwen2_5_vl'"):
        load_victim(str(tmp_path / "copy"), None)
    assert set(WITHOUT_TEMPLATE) == {"paligemma", "blip-2", "instructblip"}


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ messages[0]['content'][0]['type'] }}", "must hold the question once"),
        ("{{ raise_exception('no images here') }}", "fails on an image with a question"),
    ],
)
def test_a_template_that_cannot_ask_is_refused(qwen, tmp_path, template, reason):
    shutil.copytree(qwen, tmp_path / "copy")
    (tmp_path / "copy" / "chat_template.jinja").write_text(template)
    with pytest.raises(UsageError, match=reason):
        load_victim(str(tmp_path / "copy"), None)


@pytest.mark.parametrize("size", ["0", "7", "-5", "3.5", "large"])
def test_an_image_size_that_is_none_is_refused(qwen, size):
    with pytest.raises(UsageError, match="--image-size takes a whole number of pixels from 8"):
        load_victim(str(qwen), None, {"image_size": size})


# ---- Prompts ---------------------------------------------------------------------------------------------------------


def test_prompt_and_answer_are_those_of_the_template(victim):
    talk = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "a cat"}]},
    ]
    whole = victim.processor.apply_chat_template(talk, tokenize=False)
    ids = victim.asking.tokenizer(victim.asking.prompt("what?")).input_ids + victim.asking.answer("what?", "a cat")
    assert victim.asking.tokenizer.decode(ids) == whole.removesuffix("\n")
    assert victim.asking.end == victim.asking.tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_a_question_that_holds_the_image_token_is_refused(victim):
    with pytest.raises(UsageError, match=r"holds <\|image_pad\|>, which stands for the image"):
        victim.generate(images(1), ["what is <|image_pad|>?"], max_new_tokens=1)


# ---- Pixels ----------------------------------------------------------------------------------------------------------


def test_images_keep_their_size_or_get_the_one_that_is_chosen(qwen, victim):
    picture = Image.new("L", (90, 60), 51)
    assert victim.preprocess(picture).shape == (3, 60, 90)
    assert float(victim.preprocess(picture).max()) == pytest.approx(0.2)
    small = load_victim(str(qwen), None, {"image_size": "45"})
    assert small.preprocess(picture).shape == (3, 30, 45)
    assert dict(small.settings) == {"image_size": "45"} == dict(small.at("bf16").settings)


def test_a_batch_of_larger_images_is_another_prompt(victim):
    loss = victim.answers(QUESTIONS, ANSWERS)
    large = torch.rand(4, 3, 56, 56, generator=torch.Generator().manual_seed(1))
    found = loss(images(), torch.arange(4)).nll, loss(large, torch.arange(4)).nll
    alone = victim.answers(QUESTIONS[:1], ANSWERS[:1])(large[:1], torch.arange(1)).nll
    torch.testing.assert_close(found[1][:1], alone)
    assert not torch.allclose(*found)
    counts = victim.facts([(40, 52), (56, 56)])["prompt_tokens"].split("-")
    assert int(counts[0]) < int(counts[1])


def test_overshoots_of_a_resize_are_clamped_as_8_bit_pixels_are(tmp_path):
    """White noise of black and white pixels: the paths stay together only where the float one is clamped."""
    victim = load_any_model(str(write("Idefics3, SmolVLM", tmp_path)), None)
    noise = torch.randint(0, 2, (1, 3, 40, 52), generator=torch.Generator().manual_seed(0)).float()
    assert 255 * victim.pixels.gap(noise) < 3
    del victim.pixels._soft.resize
    assert 255 * victim.pixels.gap(noise) > 20


def test_an_image_processor_that_computes_with_pil_is_refused_with_the_remedy(qwen):
    from transformers import AutoProcessor, Qwen2VLImageProcessorPil

    processor = AutoProcessor.from_pretrained(qwen)
    processor.image_processor = Qwen2VLImageProcessorPil.from_pretrained(qwen)
    with pytest.raises(UsageError, match=r"Qwen2VLImageProcessorPil\) takes no float images .*pip install -U"):
        ImageInputs(processor, "a <|vision_start|><|image_pad|><|vision_end|>", "here")


def test_an_image_processor_that_takes_floats_for_other_images_is_refused(tmp_path):
    """LLaVA's padding has the mean's colour in 8 bits, which in floating point is far from white."""
    from transformers import LlavaImageProcessor

    folder = write("LLaVA-1.5", tmp_path)
    LlavaImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}, do_pad=True).save_pretrained(
        folder
    )
    processor = json.loads((folder / "processor_config.json").read_text())
    processor["image_processor"] = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "processor_config.json").write_text(json.dumps(processor))
    with pytest.raises(UsageError, match="makes other inputs of float images than of 8-bit ones"):
        load_any_model(str(folder), None)


def test_the_deployed_model_sees_rounded_pixels(victim):
    shown = images()
    nudged = shown + 0.4 / 255
    assert all(torch.equal(a, b) for a, b in _both(victim.deployed(), shown, nudged))
    assert not all(torch.equal(a, b) for a, b in _both(victim, shown, nudged))
    assert pil(nudged[0]).size == (52, 40)
    assert isinstance(victim, OnPixels)


def _both(victim, first, second):
    one, other = victim.image_inputs(first), victim.image_inputs(second)
    return [(one[key], other[key]) for key in one]


# ---- Precision and memory --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_in_half_precision_losses_stay_close_and_float32(victim, precision):
    half, shown = victim.at(precision), images()
    assert half.at(precision) is half
    assert victim.at("float32") is victim
    assert {p.dtype for p in half.model.parameters()} == {half.compute}
    losses, gradients = [], []
    for one in (victim, half):
        leaf = shown.clone().requires_grad_()
        nll = one.answers(QUESTIONS, ANSWERS)(leaf, torch.arange(4)).nll
        losses.append(nll)
        gradients.append(torch.autograd.grad(nll.sum(), leaf)[0].flatten())
    assert losses[1].dtype == gradients[1].dtype == torch.float32
    torch.testing.assert_close(*losses, rtol=0.05, atol=0.05)
    assert float(torch.cosine_similarity(*gradients, dim=0)) > 0.95
    assert float(gradients[1].norm() / gradients[0].norm()) == pytest.approx(1, abs=0.1)


def test_memory_is_measured_and_checkpointing_needs_less(victim, monkeypatch):
    monkeypatch.setattr(memory, "SIDE", 56)
    weights = sum(p.numel() for p in victim.parameters()) * 4
    one, four = victim.need(1, checkpointing=False), victim.need(4, checkpointing=False)
    assert one.weights == weights
    assert four.activations == 4 * one.activations > 0
    assert victim.need(1, checkpointing=True).activations < one.activations
    assert not any("forward" in vars(module) for module in victim.model.modules()), "nothing is left switched on"


def test_what_a_forward_pass_keeps_is_counted_without_weights():
    layer = torch.nn.Linear(10, 20)
    x = torch.rand(3, 10, requires_grad=True)
    assert memory.kept_bytes(lambda: layer(x).relu(), layer) == 4 * 3 * (10 + 20)


def test_recomputed_blocks_change_nothing(qwen, victim):
    saving = load_any_model(str(qwen), None)
    saving.checkpoint_activations()
    assert saving.at("bf16").checkpoints
    found = []
    for one in (victim, saving):
        leaf = images().requires_grad_()
        nll = one.answers(QUESTIONS, ANSWERS)(leaf, torch.arange(4)).nll
        found.append((nll, torch.autograd.grad(nll.sum(), leaf)[0]))
    torch.testing.assert_close(*found)


# ---- The header, features, and numbers that are none -----------------------------------------------------------------


def test_the_header_learns_what_moves_a_number(victim):
    facts = victim.facts([(40, 52)])
    assert facts["image_processor"]["size"] == {"shortest_edge": 28**2, "longest_edge": 56**2}
    assert facts["image_processor"]["merge_size"] == 2
    assert len(facts["template"]) == 16
    assert (facts["model_type"], facts["tower"], facts["decoding"]) == ("qwen2_5_vl", "native", "greedy")
    json.dumps(facts)
    with pytest.raises(UsageError, match="takes no image of 2000 x 2 pixels"):
        victim.facts([(2, 2000)])


def test_the_features_of_an_image_have_a_gradient(victim):
    leaf = images().requires_grad_()
    found = victim.encoder(leaf)
    assert found.shape == (4, 32)
    (gradient,) = torch.autograd.grad(found[0].sum(), leaf)
    assert gradient[0].any()
    assert not gradient[1:].any()
    assert victim.encoder.at("bf16")(images()).dtype == torch.float32


def test_an_answer_whose_logits_are_not_finite_is_an_error(victim, monkeypatch):
    head, spoilt = victim.model.lm_head, []

    def spoil(module, inputs, output):
        if len(spoilt) < 1:
            output = output.clone()
            output[1, -1, 5] = torch.nan
        spoilt.append(1)
        return output

    handle = head.register_forward_hook(spoil)
    try:
        found = victim.generate(images(), QUESTIONS, max_new_tokens=2)
    finally:
        handle.remove()
    assert [answer.error is None for answer in found] == [True, False, True, True]


def test_what_follows_the_end_of_an_answer_may_be_anything():
    watch = Finite([7])
    watch(torch.tensor([[1], [1]]), torch.zeros(2, 9))
    watch(torch.tensor([[1, 7], [1, 2]]), torch.full((2, 9), torch.inf))
    assert watch.finite.tolist() == [True, False]
