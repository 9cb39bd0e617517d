"""R-TPT against a plain rewriting with PyTorch's own AdamW and open_clip's own text tower, and its views."""

import random
from functools import lru_cache

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from bench.config import Request, resolve
from bench.errors import UsageError
from bench.models.defences.base import See
from bench.models.defences.draws import Draws
from bench.models.defences.load import load_chain, load_defence
from bench.models.defences.views import augmix, random_crop
from bench.models.encoders.load import load_encoder
from bench.running.load import prepare

COUNT = 3
DRAWS = Draws(tuple(range(20, 20 + COUNT)))
SPEC = "r-tpt?views=7&share=0.4&neighbours=3&temperature=0.1"
NAMES = ("circle", "square", "triangle", "star")


@lru_cache
def setup():
    (config,) = resolve(Request(encoder=("clip",), task=("zeroshot",), dataset=("mini-shape",), limit=COUNT))
    return prepare(config)


def images():
    return setup().images[list(range(COUNT))]


def see():
    return See(setup().encoder, setup().encoder.text)


def logits(shown, draws=DRAWS, spec=SPEC, gradient="own"):
    return load_chain([spec]).classify(shown, see(), NAMES, draws, gradient)


class Words(torch.nn.Module):
    """open_clip's text tower with the four words after the start as parameters; its layers called one by one."""

    def __init__(self, clip, tokens):
        super().__init__()
        self.clip, self.tokens = clip, tokens
        embedded = clip.token_embedding(tokens).detach()
        self.before, self.after = embedded[:, :1], embedded[:, 5:]
        self.words = torch.nn.Parameter(embedded[0, 1:5].clone())

    def forward(self):
        clip, count = self.clip, len(self.tokens)
        x = torch.cat([self.before, self.words.expand(count, -1, -1), self.after], 1) + clip.positional_embedding
        x = clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask))
        return normalize(x[torch.arange(count), self.tokens.argmax(1)] @ clip.text_projection, dim=1)


def voted(image, seed):
    """R-TPT on one image, written down once more."""
    defence, text = load_defence(SPEC), load_encoder("clip").text
    views = normalize(setup().encoder(defence.seen(image, seed)), dim=1)
    prompt = Words(text.clip, text.tokenizer([f"a photo of a {name}" for name in NAMES]))
    optimiser = torch.optim.AdamW([prompt.words], lr=5e-3)
    likely = (text.scale * views @ prompt().T).softmax(1)
    entropy = -(likely * likely.log()).sum(1)
    entropy[entropy.argsort()[:3]].mean().backward()  # 40 % of eight views
    before = prompt.words.detach().clone()
    optimiser.step()
    assert (prompt.words - before).abs().max() > 4e-3
    scores = []
    for k, view in enumerate(views):
        cosines = sorted((float(view @ other) for j, other in enumerate(views) if j != k), reverse=True)
        scores.append(np.mean(cosines[:3]))
    weights = np.exp(np.array(scores) / 0.1) / np.exp(np.array(scores) / 0.1).sum()
    answers = (text.scale * views @ prompt().T).detach().numpy()
    return sum(weight * answer for weight, answer in zip(weights, answers, strict=True))


def test_it_is_what_its_paper_says():
    first = Draws(DRAWS.seeds).of_part(0)  # of the first defence
    for found, image, seed in zip(logits(images()), images(), first.seeds, strict=True):
        np.testing.assert_allclose(found.numpy(), voted(image, seed), atol=2e-3)


def test_the_prompt_that_is_tuned_matters():
    still = logits(images(), spec=SPEC + "&lr=0")
    assert (logits(images()) - still).abs().max() > 0.05


def test_an_answer_does_not_depend_on_its_batch():
    alone = torch.cat([logits(images()[k : k + 1], Draws((DRAWS.seeds[k],))) for k in range(COUNT)])
    torch.testing.assert_close(logits(images()), alone, rtol=0, atol=1e-4)


def test_answers_change_with_the_draws_alone():
    assert torch.equal(logits(images()), logits(images()))
    assert not torch.equal(logits(images()), logits(images(), Draws((1, 2, 3))))


def test_its_own_gradient_is_none_and_the_stand_ins_is_that_of_the_image_under_its_tuned_prompt():
    shown = images().requires_grad_()
    assert not logits(shown).requires_grad
    found = logits(shown, gradient="surrogate")
    assert torch.equal(found.detach(), logits(images()))
    found[:, 1].sum().backward()
    plain = images().requires_grad_()
    alone = normalize(setup().encoder(plain), dim=1) @ setup().encoder.text.embed([f"a photo of a {NAMES[1]}"]).T
    alone.sum().backward()
    cosines = torch.cosine_similarity(shown.grad.flatten(1), plain.grad.flatten(1))
    assert (cosines > 0.7).all(), "the prompt is tuned a little only"


def defended(*specs):
    asked = {"task": ("zeroshot",), "dataset": ("mini-shape",), "eps": (4.0,), "limit": COUNT}
    (config,) = resolve(Request(encoder=("clip",), defence=specs, **asked))
    found = prepare(config)
    return found.victim, found.samples


def test_a_zero_shot_classifier_answers_by_its_vote():
    victim, samples = defended("jpeg", SPEC)
    drawn = victim.drawn(DRAWS)
    purified = load_defence("jpeg").purify(images(), see(), DRAWS)
    names = tuple(setup().task.dataset.classnames)
    expected = load_defence(SPEC).logits(purified, see(), names, DRAWS.of_part(1))
    torch.testing.assert_close(drawn.logits(images()), expected)
    assert [one.text for one in drawn.predict(images(), samples)] == [names[k] for k in expected.argmax(1)]


def test_where_it_does_not_fit():
    with pytest.raises(UsageError, match="name it last"):
        load_chain([SPEC, "jpeg"])
    with pytest.raises(UsageError, match="share above 0"):
        load_defence("r-tpt?share=0")
    encoder = defended(SPEC)[0].view(DRAWS)
    with pytest.raises(UsageError, match="before zero-shot classification alone"):
        encoder(images())
    with pytest.raises(UsageError, match="works on the embeddings"):
        load_chain([SPEC]).check_images()


def test_a_view_is_a_crop_of_the_picture():
    ramp = np.arange(48, dtype=np.uint8)[None, :, None] * np.ones((48, 1, 3), np.uint8)
    seen = [np.asarray(random_crop(Image.fromarray(ramp), random.Random(k)))[0, :, 0].astype(int) for k in range(50)]
    rises = [np.diff(row) for row in seen]
    assert all((rise >= 0).all() or (rise <= 0).all() for rise in rises), (
        "nothing but a part of the ramp, or its mirror"
    )
    assert 10 < sum(rise.sum() > 0 for rise in rises) < 40
    assert len({tuple(row) for row in seen}) > 40


def test_augmix_lies_between_the_picture_and_its_changes(monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    found = [augmix(Image.fromarray(noise), random.Random(k)) for k in range(40)]
    assert all(one.min() >= 0 and one.max() <= 1 + 1e-6 and one.shape == (48, 48, 3) for one in found)
    shares = [np.corrcoef(one.ravel(), noise.ravel())[0, 1] for one in found]
    assert min(shares) < 0.9 < max(shares), "from nearly the picture itself to something else"
    monkeypatch.setattr("bench.models.defences.views.CHANGES", (lambda picture, draw: picture,))
    unchanged = augmix(Image.fromarray(noise), random.Random(0))
    np.testing.assert_allclose(unchanged, noise / 255, atol=1e-6, err_msg="weights sum to one")
