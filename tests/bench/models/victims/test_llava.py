"""A LLaVA-1.5 checkpoint in the hub's files: prompts, padding, losses, precisions, and refusals that name the file."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import LlavaForConditionalGeneration

from bench.data.images import open_image
from bench.errors import UsageError
from bench.models.encoders.encoder import Encoder
from bench.models.victims import prefix
from bench.models.victims.llava.model import Llava, load_llava, pad_to_square
from bench.models.victims.prompts import answer_ids
from tasks.openings import Openings
from tests.bench.models.llava_checkpoint import NATIVE, SIZE, raw_tokenizer, small_encoder, write_llava

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions."
)
QUESTIONS = [
    "what is in the image?",
    "how many birds are near the sea, and is the car red or white?\nAnswer the question using a single word or phrase.",
    "a?",
    "is it a dog?\nAnswer the question using a single word or phrase.",
    "what",
    "three white birds near the sea and a red car and a cat on a sofa and two dogs, is this what the image shows?",
    "which phrase?",
    "cat or dog?",
]
ANSWERS = ["a cat on a sofa.", "two", "Unanswerable", "yes", "a red car near the sea, two dogs", "no", "☃", "dogs"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_llava(tmp_path_factory.mktemp("hub") / "llava-1.5-small-hf")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return small_encoder()


@pytest.fixture(scope="module")
def model(folder, encoder) -> Llava:
    return load_llava(str(folder), encoder, conversation_name="vicuna_v1")


@pytest.fixture(scope="module")
def whole(folder, encoder) -> Llava:
    """The same model, which computes the text before the image anew each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefix, "SHORTEST", 10**6)
        return load_llava(str(folder), encoder, conversation_name="vicuna_v1")


@pytest.fixture(scope="module")
def native(folder, encoder) -> Llava:
    return load_llava(str(folder), encoder, tower="native", conversation_name="vicuna_v1")


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(8, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3))


def _all(count=8):
    return torch.arange(count)


def _gradient(llava, images):
    leaf = images.clone().requires_grad_()
    scores = llava.answers(QUESTIONS, ANSWERS)(leaf, _all())
    (gradient,) = torch.autograd.grad(scores.nll.sum(), leaf)
    return scores, gradient


# ---- Prompts ---------------------------------------------------------------------------------------------


def _reference_ids(text: str) -> list[int]:
    """Split at the image, tokenise the parts apart, keep the first BOS, -200 for the image (PROTOCOL, section 3.1)."""
    slow = raw_tokenizer()  # knows no image token
    before, after = (slow.encode(part).ids for part in text.split("<image>"))
    return [1, *before, -200, *after]


@pytest.mark.parametrize(("question", "answer"), list(zip(QUESTIONS, ANSWERS, strict=True)))
def test_vicuna_ids_are_those_of_the_split_tokenisation(model, question, answer):
    text = f"{SYSTEM} USER: <image>\n{question} ASSISTANT: {answer}"
    ids = [*model.talk.before, -200, *model.talk.after(question, answer)]
    assert ids == _reference_ids(text)
    pieces = model.tokenizer.convert_ids_to_tokens(ids[: len(model.talk.before)] + model.talk.after(question)[:2])
    assert pieces[-4:] == [":", "▁", "▁", "<0x0A>"]
    # the reference masks as many positions as the prompt has pieces with "<image>" spelled out: up to the last colon
    spelled = raw_tokenizer().encode(text[: text.index("ASSISTANT:") + len("ASSISTANT:")])
    assert spelled.tokens[-1] == ":"
    masked = 1 + len(spelled.ids)
    prepared = model.answers([question], [answer])
    assert [*ids[masked:], 2] == prepared.ids[0, -prepared.longest :].tolist()
    assert prepared.counted.all()


def test_an_answer_is_counted_as_it_stands(model):
    """Neither stripped nor lower-cased; the end token is counted."""
    prepared = model.answers(["what?"], [" Two  dogs"])
    prompt = raw_tokenizer().encode("\nwhat? ASSISTANT:").ids
    whole = raw_tokenizer().encode("\nwhat? ASSISTANT:  Two  dogs").ids
    assert prepared.ids[0, -prepared.longest :].tolist() == [*whole[len(prompt) :], 2]


def test_every_token_says_what_it_spells(model):
    texts = model.token_texts()
    assert len(texts) == model.model.lm_head.out_features
    assert [k for k, text in enumerate(texts) if text is None] == [2]
    for answer in ANSWERS:
        ids = answer_ids(model.talk, "what?", answer, 2)
        assert answer.strip().startswith(texts[ids[0]].strip() or answer.strip()[0])
        assert Openings(texts).of([answer.upper()])[ids[0]]


def test_without_a_name_the_checkpoints_own_template_is_followed(folder, encoder):
    own = load_llava(str(folder), encoder)
    whole = own.tokenizer(f"USER: <image>\n{QUESTIONS[0]} ASSISTANT: {ANSWERS[0]}").input_ids
    place = whole.index(own.image_id)
    assert [*own.talk.before, own.image_id, *own.talk.after(QUESTIONS[0], ANSWERS[0])] == whole
    assert own.talk.before == whole[:place]
    assert own.asked("x").count(own.image_id) == 9


def test_a_text_that_holds_the_image_token_is_refused(model):
    with pytest.raises(UsageError, match="'is <image> here\\?' holds <image>"):
        model.answers(["is <image> here?"], ["no"])
    with pytest.raises(UsageError, match="stands for the image"):
        model.answers(["is it here?"], ["an <image>"])


# ---- Images ----------------------------------------------------------------------------------------------


def test_padding_pixel_by_pixel():
    picture = Image.new("RGB", (2, 5))
    for y in range(5):
        for x in range(2):
            picture.putpixel((x, y), (10 * y, 100 + x, 7))
    padded = pad_to_square(picture, MEAN)
    assert padded.size == (5, 5)
    for y in range(5):  # floor((5 - 2) / 2) = 1 column on the left, 2 on the right
        fill = (122, 116, 104)
        assert [padded.getpixel((x, y)) for x in range(5)] == [fill, (10 * y, 100, 7), (10 * y, 101, 7), fill, fill]
    wide = pad_to_square(picture.transpose(Image.Transpose.ROTATE_90), MEAN)
    assert [wide.getpixel((2, y)) == (122, 116, 104) for y in range(5)] == [True, False, False, True, True]


def test_a_greyscale_image_is_padded_grey_and_a_square_one_not_at_all():
    assert pad_to_square(Image.new("L", (1, 2), 9), (0.48, 0.46, 0.41)).convert("RGB").getpixel((1, 0)) == (
        122,
        122,
        122,
    )
    square = Image.new("RGB", (3, 3), (1, 2, 3))
    assert pad_to_square(square, (0.5, 0.5, 0.5)).tobytes() == square.tobytes()


def test_a_greyscale_file_is_padded_grey_by_the_time_it_is_padded(tmp_path):
    """As LLaVA's code does, which opens a file without converting it: 122 on every channel, not 122, 116, 104."""
    for mode, fill in (("L", (122, 122, 122)), ("RGB", (122, 116, 104))):
        path = tmp_path / f"{mode}.png"
        Image.new(mode, (1, 2)).save(path)
        picture = open_image(path)
        assert picture.mode == "RGB"
        assert pad_to_square(picture, MEAN).convert("RGB").getpixel((1, 0)) == fill


@pytest.mark.parametrize("source", ["argument", "config", "nothing"])
def test_padding_is_asked_for_by_suite_or_checkpoint(folder, encoder, tmp_path, source):
    copy = folder
    if source == "config":
        copy = Path(shutil.copytree(folder, tmp_path / "copy"))
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps(config | {"image_aspect_ratio": "pad"}))
    llava = load_llava(str(copy), encoder, pad_to_square=source == "argument")
    picture = Image.new("RGB", (SIZE, 3 * SIZE), (255, 0, 0))
    seen = llava.preprocess(picture)
    expected = encoder.preprocess(
        picture if source == "nothing" else pad_to_square(picture, encoder.preprocessing.mean)
    )
    assert torch.equal(seen, expected)
    assert (seen[0] == 1).all() == (source == "nothing")


# ---- Losses and texts ------------------------------------------------------------------------------------


def test_the_native_tower_gives_transformers_own_loss(folder, native):
    """Own forward pass, own tower, own loss of the same ids: an independent computation from the same files.

    With the end token as it is, and without.
    """
    theirs = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    pictures = torch.rand(2, 3, NATIVE, NATIVE, generator=torch.Generator().manual_seed(0))
    ours = native.answers(QUESTIONS[:2], ANSWERS[:2])(pictures, _all(2))
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    for k in range(2):
        asked = [*native.talk.before, *[native.image_id] * 16, *native.talk.after(QUESTIONS[k])]
        said = native.talk.after(QUESTIONS[k], ANSWERS[k])[len(native.talk.after(QUESTIONS[k])) :]
        ids = torch.tensor([[*asked, *said, 2]])
        labels = ids.clone()
        labels[:, : len(asked)] = -100
        for found, wanted in ((ours.nll, labels), (ours.nll_without_end, labels.masked_fill(ids == 2, -100))):
            with torch.no_grad():
                loss = theirs(input_ids=ids, pixel_values=(pictures[k : k + 1] - mean) / std, labels=wanted).loss
            assert found[k].item() == pytest.approx(loss.item(), rel=1e-5)


def test_the_native_tower_sees_the_checkpoints_pixels(folder, native):
    from transformers import AutoProcessor

    picture = Image.effect_noise((70, 90), 60).convert("RGB")
    theirs = AutoProcessor.from_pretrained(folder).image_processor(picture, return_tensors="pt", do_normalize=False)
    assert (native.preprocess(picture) - theirs["pixel_values"][0]).abs().max() < 2.5 / 255  # rounding of the resize
    assert native.patches == 16


def test_batches_of_any_size_give_the_same_losses_gradients_and_texts(model, images):
    together, gradient = _gradient(model, images)
    lengths = {len(model.talk.after(q, a)) for q, a in zip(QUESTIONS, ANSWERS, strict=True)}
    assert len(lengths) >= 6
    said = model.generate(images, QUESTIONS, max_new_tokens=7)
    assert len(set(said)) > 1
    for k in range(8):
        leaf = images[k : k + 1].clone().requires_grad_()
        alone = model.answers([QUESTIONS[k]], [ANSWERS[k]])(leaf, _all(1))
        assert alone.nll.item() == pytest.approx(together.nll[k].item(), rel=1e-4)
        assert (alone.greedy[0], alone.first[0]) == (together.greedy[k], together.first[k])
        (own,) = torch.autograd.grad(alone.nll.sum(), leaf)
        assert torch.allclose(own[0], gradient[k], rtol=1e-3, atol=1e-3 * gradient[k].abs().max().item())
        assert model.generate(images[k : k + 1], [QUESTIONS[k]], max_new_tokens=7) == [said[k]]
    assert not any(p.requires_grad for p in model.parameters())


def test_generation_is_greedy_and_agrees_with_transformers(model, whole, images):
    rows = whole.rows([whole.asked(question) for question in QUESTIONS])
    theirs = whole.model.generate(
        inputs_embeds=whole.embed(rows.ids, images), attention_mask=rows.mask, max_new_tokens=7, do_sample=False
    )
    texts = [text.strip() for text in model.tokenizer.batch_decode(theirs, skip_special_tokens=True)]
    assert [a.text for a in model.generate(images, QUESTIONS, max_new_tokens=7)] == texts


def test_a_row_stops_at_an_end_token_and_the_others_go_on(model, images, monkeypatch):
    said = model.generate(images, QUESTIONS, max_new_tokens=4)
    first = model.answers(QUESTIONS, ANSWERS)(images, _all()).first
    row = int((first[:, None] == first).sum(1).argmin())  # no other row begins with its token
    monkeypatch.setattr(model, "ends", lambda: [2, int(first[row])])
    stopped = model.generate(images, QUESTIONS, max_new_tokens=4)
    assert stopped[row] == model.generate(images, QUESTIONS, max_new_tokens=1)[row] != said[row]
    assert sum(a == b for a, b in zip(stopped, said, strict=True)) >= 4


def test_the_prefix_from_the_cache_gives_the_losses_of_the_whole_prompt(model, whole, images):
    assert (whole.prefix.kept, model.prefix.kept) == (0, len(model.talk.before))
    expected, gradient = _gradient(whole, images)
    found, ours = _gradient(model, images)
    assert torch.allclose(found.nll, expected.nll, rtol=1e-5)
    assert torch.allclose(ours, gradient, rtol=1e-3, atol=1e-4 * gradient.abs().max().item())
    assert model.generate(images, QUESTIONS, max_new_tokens=7) == whole.generate(images, QUESTIONS, max_new_tokens=7)


# ---- Precision -------------------------------------------------------------------------------------------


def test_half_precision_storage_does_not_change_float32_results(folder, encoder, model, images):
    stored = load_llava(str(folder), encoder, conversation_name="vicuna_v1", dtype="auto")
    assert (stored.stored, model.stored) == (torch.float16, torch.float32)
    expected, gradient = _gradient(model, images)
    found, ours = _gradient(stored, images)
    assert torch.allclose(found.nll, expected.nll, rtol=1e-6)
    assert torch.allclose(ours, gradient, rtol=1e-5, atol=1e-5 * gradient.abs().max().item())
    assert stored.generate(images, QUESTIONS, max_new_tokens=5) == model.generate(images, QUESTIONS, max_new_tokens=5)


def test_float32_compute_keeps_no_float32_copy_of_stored_weights(folder, encoder, images):
    stored = load_llava(str(folder), encoder, conversation_name="vicuna_v1", dtype="auto")
    weights = {p.data_ptr() for p in stored.parameters()}
    shapes = {tuple(p.shape) for p in stored.model.parameters() if p.dim() == 2}
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        stored.answers(QUESTIONS, ANSWERS)(images.clone().requires_grad_(), _all())
    copies = [t for t in saved if {tuple(t.shape), tuple(t.shape)[::-1]} & shapes and t.data_ptr() not in weights]
    assert not copies


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("dtype", [None, "auto"])
def test_half_precision_search_is_close_and_gives_float32(folder, encoder, images, precision, dtype):
    llava = load_llava(str(folder), encoder, conversation_name="vicuna_v1", dtype=dtype)
    half = llava.at(precision)
    assert llava.at("float32") is llava
    shared = half.model.lm_head.weight.data_ptr() == llava.model.lm_head.weight.data_ptr()
    assert shared == (dtype == "auto")
    expected, gradient = _gradient(llava, images)
    found, ours = _gradient(half, images)
    assert found.nll.dtype == ours.dtype == torch.float32
    assert torch.allclose(found.nll, expected.nll, rtol=0.02)
    assert not torch.equal(found.nll, expected.nll)
    cosine = torch.nn.functional.cosine_similarity(ours.flatten(1), gradient.flatten(1))
    assert cosine.min() > 0.97
    ratio = ours.norm() / gradient.norm()
    assert 0.95 < ratio < 1.05  # the inner scale of fp16 gradients is taken out again
    again, _ = _gradient(llava, images)
    assert torch.equal(again.nll, expected.nll)
