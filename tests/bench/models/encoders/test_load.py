"""Encoders and LLaVA: exact conversion, batch invariance, and refusals that name the file."""

import shutil
from pathlib import Path

import pytest
import torch
from open_clip.transformer import VisionTransformer
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF
from transformers import AutoProcessor, LlavaForConditionalGeneration

from bench.errors import UsageError
from bench.mini import clip as mini_clip
from bench.mini import data, llava, packing
from bench.models.encoders import catalogue
from bench.models.encoders.checkpoint import read_state_dict
from bench.models.encoders.encoder import Encoder, PatchProjection
from bench.models.encoders.load import digest, load_encoder
from bench.models.encoders.stored import compile_blocks
from bench.models.victims.llava.model import Llava, load_llava

WEIGHTS = Path(catalogue.resolve_path("package:mini/weights"))
PROMPTS = ("what color is the star ?", "is there a circle ?", "describe the image", "how many objects are there ?")
ANSWERS = ("red", "no", "a red star and a blue ring", "two")


@pytest.fixture(scope="module")
def plain() -> Encoder:
    return load_encoder("clip")


@pytest.fixture(scope="module")
def model(plain) -> Llava:
    return load_llava(str(WEIGHTS / "llava"), plain)


@pytest.fixture(scope="module")
def images(plain) -> torch.Tensor:
    return torch.stack([plain.preprocess(s.image) for s in data.build("mini-vqa", 4).samples])


def test_encoder_normalises_inside(plain, images):
    standardised = (images - torch.tensor(mini_clip.MEAN).view(3, 1, 1)) / torch.tensor(mini_clip.STD).view(3, 1, 1)
    assert torch.allclose(plain(images), plain.visual(standardised), atol=1e-6)


@pytest.mark.parametrize(("size", "patch"), [(48, 16), (28, 7)])
def test_patch_projection_equals_the_convolution(size, patch):
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 20, patch, patch, bias=False)
    ours, pixels = PatchProjection(convolution), torch.rand(2, 3, size, size, requires_grad=True)
    expected, found = convolution(pixels), ours(pixels)
    assert torch.allclose(found, expected, atol=1e-6)
    (theirs,) = torch.autograd.grad(expected.square().sum(), pixels)
    (gradient,) = torch.autograd.grad(found.square().sum(), pixels)
    assert torch.allclose(gradient, theirs, atol=1e-5)
    assert ours.state_dict().keys() == convolution.state_dict().keys()


def test_preprocess_leaves_a_fitting_image_alone_and_crops_another(plain):
    image = data.build("mini-shape", 1).samples[0].image
    assert torch.equal((plain.preprocess(image) * 255).round().byte().permute(1, 2, 0), torch.tensor(_pixels(image)))
    assert plain.preprocess(Image.new("L", (100, 60))).shape == (3, 48, 48)


def test_preprocess_can_squash_instead_of_cropping(plain):
    """Left half white, right half black, twice as wide as high: cropping and squashing keep both halves, scaled."""
    from dataclasses import replace

    image = Image.new("RGB", (192, 96))
    image.paste((255, 255, 255), (0, 0, 24, 96))
    for mode, white in (("shortest", 0), ("squash", 6)):
        encoder = Encoder(plain.visual, replace(plain.preprocessing, resize_mode=mode), plain.text)
        columns = encoder.preprocess(image)[0].mean(0)
        assert columns.shape == (48,)
        assert columns[: white - 1 if white else 0].gt(0.9).all()
        assert columns[white + 1 :].lt(0.1).all()


@pytest.mark.parametrize("native", [32, 96])
def test_native_images_are_resized_inside_as_torchvision_resizes_tensors(plain, native):
    small = torch.rand(2, 3, native, native, requires_grad=True)
    resized = TF.resize(small, [48, 48], InterpolationMode.BICUBIC, antialias=False)
    assert resized.min() < 0 or resized.max() > 1, "the case must overshoot, to show that nothing is clamped"
    assert torch.allclose(plain(small), plain(resized), atol=1e-5)
    assert torch.allclose(plain.patch_tokens(small), plain.patch_tokens(resized), atol=1e-5)
    (ours,) = torch.autograd.grad(plain(small).square().sum(), small)
    (theirs,) = torch.autograd.grad(plain(resized).square().sum(), small)
    assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="square"):
        plain(torch.rand(1, 3, 32, 48))


@pytest.mark.parametrize(("precision", "error"), [("bf16", 0.05), ("fp16", 0.01)])
def test_half_precision_is_close_and_float32_outside(plain, images, precision, error):
    half = plain.at(precision)
    leaf = images.clone().requires_grad_()
    embeddings, tokens = half(leaf), half.patch_tokens(images)
    assert embeddings.dtype == tokens.dtype == torch.float32
    assert next(half.visual.parameters()).dtype in (torch.bfloat16, torch.float16)
    expected = plain(images)
    difference = (embeddings - expected).norm() / expected.norm()
    assert 0 < difference < error
    (gradient,) = torch.autograd.grad(embeddings.sum(), leaf)
    assert gradient.dtype == torch.float32
    assert gradient.isfinite().all()
    assert half.text is plain.text
    assert half.preprocess(Image.new("RGB", (60, 50))).dtype == torch.float32
    assert plain.at("float32") is plain
    assert next(plain.visual.parameters()).dtype == torch.float32, "the original stays as it was"
    assert torch.equal(plain(images), expected)


def _pixels(image):
    import numpy as np

    return np.asarray(image)


def test_classifier_columns_are_the_normalised_mean_of_unit_embeddings(plain):
    weights = plain.text.classifier(["star", "ring"], ["a photo of a {c}", "a {c}"])
    stars = plain.text.embed(["a photo of a star", "a star"]).mean(0)
    assert torch.allclose(weights[:, 0], stars / stars.norm(), atol=1e-6)
    with pytest.raises(ValueError, match=r"\{c\}"):
        plain.text.classifier(["star"], ["a photo"])


def test_llava_loss_equals_transformers_own(model, images):
    """The checkpoint's own tower, processor and loss agree with ours around the same encoder."""
    native = LlavaForConditionalGeneration.from_pretrained(WEIGHTS / "llava", dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(WEIGHTS / "llava")
    pictures = [s.image for s in data.build("mini-vqa", 4).samples]
    with torch.no_grad():
        ours = model.answers(PROMPTS, ANSWERS)(images, torch.arange(4)).nll
        for k in range(4):
            content = [{"type": "image"}, {"type": "text", "text": PROMPTS[k]}]
            prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
            batch = processor(images=pictures[k], text=f"{prompt} {ANSWERS[k]} </s>", return_tensors="pt")
            labels = batch["input_ids"].clone()
            labels[:, : -len(ANSWERS[k].split()) - 1] = -100
            theirs = native(**batch, labels=labels).loss
            assert ours[k].item() == pytest.approx(theirs.item(), rel=2e-3)  # its tower is stored in half precision


def test_losses_and_texts_do_not_depend_on_the_batch(model, images):
    together = model.answers(PROMPTS, ANSWERS)(images, torch.arange(4))
    for k in range(4):
        alone = model.answers([PROMPTS[k]], [ANSWERS[k]])(images[k : k + 1], torch.zeros(1, dtype=torch.int64))
        assert alone.nll.item() == pytest.approx(together.nll[k].item(), rel=1e-4)
        assert alone.greedy[0] == together.greedy[k]
        assert alone.first[0] == together.first[k]
    said = model.generate(images, PROMPTS, max_new_tokens=8)
    assert said == [model.generate(images[k : k + 1], [PROMPTS[k]], max_new_tokens=8)[0] for k in range(4)]


def test_greedy_scores_announce_what_generation_says(model, images):
    said = [answer.text for answer in model.generate(images, PROMPTS, max_new_tokens=20)]
    scores = model.answers(PROMPTS, said)(images, torch.arange(4))
    assert scores.greedy.all()
    begun = model.answers(PROMPTS, [text.split()[0] for text in said])(images, torch.arange(4))
    assert begun.greedy.all(), "an answer is said, too, when more follows"
    assert any(len(text.split()) > 1 for text in said)
    others = model.answers(PROMPTS, [f"{text} star" for text in said])(images, torch.arange(4))
    assert not others.greedy.any()
    assert [model.tokenizer.decode([t]) for t in scores.first.tolist()] == [text.split()[0] for text in said]


def test_compiled_blocks_compute_the_same_in_one_graph_for_batches_of_all_sizes(images):
    from torch._dynamo.utils import counters

    model = load_llava(str(WEIGHTS / "llava"), load_encoder("clip"))
    scores = model.answers(PROMPTS, ANSWERS)

    def look(size):
        leaf = images[:size].clone().requires_grad_()
        nll = scores(leaf, torch.arange(size)).nll
        return nll.detach(), torch.autograd.grad(nll.sum(), leaf)[0]

    plain = {size: look(size) for size in (4, 3, 2)}
    torch._dynamo.reset()
    counters.clear()
    assert compile_blocks(model, backend="eager") == 6 + 2 + 3
    for size, expected in plain.items():
        for found, wanted in zip(look(size), expected, strict=True):
            assert torch.allclose(found, wanted, rtol=1e-5, atol=1e-7)
    words = (
        "one of the tower's block, one of the language model's, one of its last, which is asked for the answer alone"
    )
    assert counters["stats"]["unique_graphs"] == 3, words
    assert not counters["graph_break"]


def test_only_images_carry_gradient(model, images):
    leaf = images.clone().requires_grad_()
    model.answers(PROMPTS, ANSWERS)(leaf, torch.arange(4)).nll.sum().backward()
    assert (leaf.grad.flatten(1).abs().sum(1) > 0).all()
    assert not any(p.requires_grad for p in model.parameters())


def test_packed_conversations_equal_conversations_asked_alone(plain):
    """The training loss of a packed sequence is the mean over its turns asked one by one."""
    fresh = llava.new_model(plain)
    features, sequences = llava._conversations(plain, 3, seed=0)
    ids, turns, answers = sequences[0]
    image = fresh.model.multi_modal_projector(features[:1].float())
    with torch.no_grad():
        packed = llava.conversation_loss(fresh, image, *packing.collate(sequences[:1])) * sum(answers)
        alone = 0.0
        for turn in range(1, max(turns) + 1):
            keep = [i for i, t in enumerate(turns) if t in (0, turn)]
            one = ([ids[i] for i in keep], [min(turns[i], 1) for i in keep], [answers[i] for i in keep])
            alone += llava.conversation_loss(fresh, image, *packing.collate([one])) * sum(one[2])
    assert packed.item() == pytest.approx(alone.item(), rel=1e-4)


# ---- Refusals --------------------------------------------------------------------------------------------


def test_an_unknown_encoder_suggests_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'tecoa'"):
        load_encoder("tecao")


def _state():
    return load_file(WEIGHTS / "fare4" / "visual.safetensors")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda p: p.write_text("<!DOCTYPE html><html>"), "HTML page"),
        (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1"), "git-lfs pointer"),
        (lambda p: p.write_bytes(b"\x80\x05nonsense" * 20), "not a checkpoint"),
        (lambda p: p.write_text('{"message": "Not Found"}'), "is a text file"),
        (lambda p: torch.save(torch.nn.Linear(2, 2), p), r"holds Python objects.*save its model's state_dict\(\)"),
        (lambda p: (torch.save(_state(), p), p.write_bytes(p.read_bytes()[:99_999])), r"central directory\); download"),
        (lambda p: torch.save({"epoch": 3}, p), "not a state dict"),
        (lambda p: torch.save({}, p), "not a state dict"),
        (lambda p: torch.save({k: v for k, v in _state().items() if "ln_pre" not in k}, p), "2 tensors missing"),
        (lambda p: torch.save(_state() | {"extra": torch.ones(1)}, p), "unknown.*extra"),
        (lambda p: torch.save(_state() | {"proj": torch.ones(3, 3)}, p), "another shape"),
        (lambda p: torch.save(_state() | {"proj": torch.full((128, 96), torch.nan)}, p), "NaN"),
    ],
)
def test_a_bad_checkpoint_is_refused_by_name(tmp_path, write, message):
    path = tmp_path / "tower.pt"
    write(path)
    with pytest.raises(UsageError, match=message) as refusal:
        load_encoder(str(path))
    assert str(path) in str(refusal.value)
    assert "weights_only" not in str(refusal.value)  # torch's advice is to load it all the same


def test_a_missing_checkpoint_is_refused():
    with pytest.raises(UsageError, match=r"no such checkpoint: nowhere/x\.pt"):
        load_encoder("nowhere/x.pt")


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("pwned",))

    import pickle

    path = tmp_path / "evil.pt"
    path.write_bytes(pickle.dumps({"a": Evil()}))
    with pytest.raises(UsageError, match="not a checkpoint"):
        load_encoder(str(path))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_checkpoint_by_path_is_the_encoder(tmp_path, suffix):
    path = tmp_path / f"mine{suffix}"
    save_file(_state(), path) if suffix == ".safetensors" else torch.save({"vision_encoder_state_dict": _state()}, path)
    assert digest(load_encoder(str(path)).visual) == digest(load_encoder("fare4").visual)
    assert read_state_dict(path).keys() == _state().keys()


def test_an_open_clip_folder_is_an_encoder(tmp_path, plain):
    shutil.copytree(WEIGHTS / "clip", tmp_path / "folder")
    assert digest(load_encoder(str(tmp_path / "folder")).visual) == digest(plain.visual)
    (tmp_path / "folder" / "open_clip_config.json").unlink()
    with pytest.raises(UsageError, match=r"without open_clip_config.json"):
        load_encoder(str(tmp_path / "folder"))


def test_a_tower_of_another_width_is_refused(plain, tmp_path):
    torch.manual_seed(0)
    visual = VisionTransformer(48, 16, 64, 2, 2, 4.0, output_dim=96)
    other = Encoder(visual, plain.preprocessing, plain.text)
    with pytest.raises(UsageError, match="width 128, the encoder gives 64"):
        load_llava(str(WEIGHTS / "llava"), other)


def test_a_folder_without_llava_is_refused(plain, tmp_path):
    with pytest.raises(UsageError, match=r"lacks config\.json"):
        load_llava(str(tmp_path), plain)


def test_a_template_may_end_in_a_period():
    """The mini world writes none; as an unknown word it would hide the class name that it is glued to."""
    text = load_encoder("clip").text
    assert torch.equal(text.embed(["a photo of a star."]), text.embed(["a photo of a star"]))
